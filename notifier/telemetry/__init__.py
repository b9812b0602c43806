"""Logs, metrics and traces: observers of facts."""
