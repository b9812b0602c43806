"""Tests of notifier/features/key_places."""
