"""What runs beside requests: watch, housekeeping, learning, item updates, reports."""
