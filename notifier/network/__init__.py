"""Outgoing requests and incoming connections."""
