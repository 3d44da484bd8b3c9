"""Items, shelf rules and candidates."""
