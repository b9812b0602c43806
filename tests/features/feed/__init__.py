"""Tests of notifier/features/feed."""
