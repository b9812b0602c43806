"""Keys, signatures and encryption: what signs logout tokens, and how the tokens of others are verified."""
