"""Listener models: CoSeRNN, its baselines, training and serving."""
