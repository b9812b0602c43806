"""Accepts events over HTTP and from files, and reports their results to the publishers."""
