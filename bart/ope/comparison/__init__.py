"""Policies against each other on one log."""
