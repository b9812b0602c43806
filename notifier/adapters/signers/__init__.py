"""Signs logout tokens: keys from files, and the JWS itself."""
