"""What became of a decision: feedback joined to its cards."""
