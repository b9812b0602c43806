"""Keeps the notices of the feed in SQLite files."""
