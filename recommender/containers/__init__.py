"""Albums, playlists, artists and shows: what they hold, and what follows for them from that."""
