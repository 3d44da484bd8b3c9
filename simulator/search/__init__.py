"""A query task with a known truth: what ordering search results by the reward model earns over the caller's order."""
