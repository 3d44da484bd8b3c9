"""Looking after a log: export, verification by replay, erasure, migration, exchange as DSJSON."""
