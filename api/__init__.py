"""Settings, the HTTP service, the command line and the web page."""
