"""The listener and the candidates: events, sessions, vectors, CoSeRNN, index, shelves."""
