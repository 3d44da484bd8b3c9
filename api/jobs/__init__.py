"""The work of a run: build, ingest, retrain, rebuild, batches, gates, demo, rank all."""
