"""What is known of a listener and each candidate by the time of a visit, from what was listened to until then."""
