"""A database of others, read and never written."""
