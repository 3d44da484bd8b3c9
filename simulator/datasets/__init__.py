"""Real logs and environments."""
