"""Looks up which sessions here end with one at an upstream provider."""
