"""Provides what commands share: text, tables, help, options, and access to the configuration and the queue."""
