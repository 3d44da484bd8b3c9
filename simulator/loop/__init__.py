"""Visits, rounds and scenarios of a closed loop, and their true values."""
