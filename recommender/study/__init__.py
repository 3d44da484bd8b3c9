"""The protocol of the CoSeRNN paper: metrics, tables, plots."""
