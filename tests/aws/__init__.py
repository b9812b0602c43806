"""AWS KMS as moto plays it."""
