"""What a served run survives, over real sockets: scenarios of faults, and the clients who must not notice."""
