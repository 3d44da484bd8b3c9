"""Models inside estimators: reward, appeal, browsing, fitted propensities."""
