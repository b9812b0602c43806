"""Checks of everything that a logout depends on."""
