"""Learning from the log: counterfactual training, holdout metrics, online learning, shards."""
