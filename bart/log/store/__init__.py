"""The embedded store: the SQLite file, its commits and marks, and the files of an export."""
