"""What a log can prove: a Merkle root a closed day, chained to the day before and sealed with a key."""
