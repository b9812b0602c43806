"""Reads external databases, and never writes to them."""
