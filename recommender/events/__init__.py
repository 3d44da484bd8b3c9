"""Listening events: the table, its columns, local time, importers."""
