"""Looking items and listeners up: a search that is quick at a million, and what is known of one of them."""
