"""A run directory: paths, versions, settings, progress."""
