"""One vector a listener that serves every task: features, the encoder that compresses them, vectors of a batch."""
