"""Tests of notifier/features/sources."""
