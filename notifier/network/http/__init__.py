"""How notifier calls others: egress, connections, TLS, one request, JSON and published documents."""
