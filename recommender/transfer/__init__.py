"""How well vectors of listeners serve tasks that they were not made for: one protocol, one task model, all peers."""
