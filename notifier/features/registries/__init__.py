"""Readers of clients from servers and databases, one module for each kind. Start with `readers.py`."""
