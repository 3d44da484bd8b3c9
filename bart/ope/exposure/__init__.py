"""How likely a card is seen under another policy, and the estimators that rest on it."""
