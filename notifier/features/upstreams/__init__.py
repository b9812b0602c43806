"""Sessions that end at an upstream provider, and the sessions here that end with them."""
