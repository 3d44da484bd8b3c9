"""The bytes and columns of a decision, and what a client reports about its page."""
