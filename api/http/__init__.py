"""The HTTP application: routes and access."""
