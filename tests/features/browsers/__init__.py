"""Tests of notifier/features/browsers."""
