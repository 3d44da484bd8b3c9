"""Vectors of items, from co-occurrence and from content, and the index over them."""
