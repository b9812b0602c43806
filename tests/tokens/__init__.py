"""Tests of notifier/tokens."""
