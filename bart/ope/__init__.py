"""Off-policy evaluation: what another policy would have earned, from logged propensities."""
