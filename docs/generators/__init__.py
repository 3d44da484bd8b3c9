"""What makes the reference from the code, one file a kind of text; the table of them is in docs/generated.py."""
