"""Security Event Tokens that transmitters push."""
