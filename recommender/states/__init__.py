"""What is kept of each listener between visits, and where."""
