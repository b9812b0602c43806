"""Keys in places that let only signatures out: HSMs, Vault, the clouds."""
