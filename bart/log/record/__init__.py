"""The bytes and columns of a decision, and what is read from them: choices, pages, DSJSON."""
