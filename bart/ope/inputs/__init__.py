"""Logs of other systems as records: CSV, Parquet, DSJSON, npz, outside scores."""
