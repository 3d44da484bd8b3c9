"""What happens for each request."""
