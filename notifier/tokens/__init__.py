"""Keys, signatures and encryption, for our logout tokens, and for the tokens of others that are verified."""
