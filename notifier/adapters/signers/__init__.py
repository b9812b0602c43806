"""What signs logout tokens, and the keys it signs with."""
