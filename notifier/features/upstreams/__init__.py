"""Logouts at upstream OpenID Providers, and the local sessions that end with them. Start with `upstream.py`."""
