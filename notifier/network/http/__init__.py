"""Outgoing HTTP: egress, connections, TLS, one request, JSON and published documents."""
