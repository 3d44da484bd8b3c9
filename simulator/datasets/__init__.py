"""Logs and environments of others: carousel, KuaiRand, Open Bandit, and a log of one's own."""
