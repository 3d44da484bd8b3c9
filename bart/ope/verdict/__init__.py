"""Diagnostics of a log and the verdict that follows from them."""
