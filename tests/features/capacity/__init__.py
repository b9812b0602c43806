"""Tests of notifier/features/capacity."""
