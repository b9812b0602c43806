"""Sessions that end at an upstream provider, and those here that end with them."""
