"""How a page is read and what comes back."""
