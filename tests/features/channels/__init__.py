"""Tests of notifier/features/channels."""
