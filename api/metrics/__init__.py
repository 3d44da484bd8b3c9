"""What a served run says of itself in numbers: how fast, how much, how well, and whether its stores keep up."""
