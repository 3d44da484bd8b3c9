"""What a card is expected to earn: features, the model, its compiled scorer, and what a reaction is worth."""
