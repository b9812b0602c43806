"""Tests of notifier/settings."""
