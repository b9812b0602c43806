"""Servers and databases whose clients are read: one module for each kind."""
