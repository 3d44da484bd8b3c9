"""The embedded store: SQLite, commits, files, marks, replay, migration."""
