"""Logs of any length: sums that add up over parts, and the estimates that follow from them."""
