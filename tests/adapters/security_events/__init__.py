"""Security Event Tokens."""
