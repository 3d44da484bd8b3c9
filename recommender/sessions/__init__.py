"""Listening cut into sessions, and what a session is as numbers."""
