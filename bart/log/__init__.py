"""The decision log: the bytes of a decision, the store, what became of it, and its care."""
