"""Estimators against the truth of a world."""
