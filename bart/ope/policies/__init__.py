"""Policies to evaluate, and what they would have drawn on the logged candidates."""
