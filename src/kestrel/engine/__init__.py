"""Floor 6: containers as users know them: what they mean, not how a door words them."""
