"""What became of decisions: feedback joined to their cards, counts, and logged pages as flat arrays."""
