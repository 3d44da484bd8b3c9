"""The decision: rankings and propensities, page policy, reward model, decision log, off-policy evaluation."""
