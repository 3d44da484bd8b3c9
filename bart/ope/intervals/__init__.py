"""Intervals of means of weighted rewards."""
