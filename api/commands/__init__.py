"""The commands of `bart`, one file a group; heavy imports stay inside the functions."""
