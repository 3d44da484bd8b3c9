"""Several hosts: Redis, the spool, the stream of decisions."""
