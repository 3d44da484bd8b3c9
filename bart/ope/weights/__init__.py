"""Importance weights and marginal propensities."""
