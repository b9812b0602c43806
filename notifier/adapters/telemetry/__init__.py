"""Metrics, logs and traces: observers of what the pipeline does."""
