"""The world: catalogue, population, listening, appeal."""
