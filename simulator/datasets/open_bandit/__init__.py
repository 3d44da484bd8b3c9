"""The Open Bandit Dataset: two policies of one test, each estimated from the log of the other."""
