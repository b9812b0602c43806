"""Reads databases of others, and never writes to them."""
