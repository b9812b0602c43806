"""The two listeners: ops (health, metrics) and api (publishing over HTTP)."""
