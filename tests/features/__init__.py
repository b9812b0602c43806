"""Tests of notifier/features."""
