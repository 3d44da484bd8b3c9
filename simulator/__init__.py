"""A seeded world with a known truth, in which every policy and estimate can be checked."""
