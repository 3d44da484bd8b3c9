"""Evaluation of logs as commands ask for it."""
