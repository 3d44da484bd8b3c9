"""Looking after a log: export, verification, erasure."""
