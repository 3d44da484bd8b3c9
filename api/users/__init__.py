"""User vectors of a run: the encoder of a batch, vectors of everybody, who is alike, their evaluation."""
