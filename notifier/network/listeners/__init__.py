"""Incoming HTTP: listeners, authorization, limits, refusals, the description of the API."""
