"""Keys at signers, which return only signatures: HSMs, Vault, the clouds."""
