"""Logs, metrics and traces, written by observers of facts."""
