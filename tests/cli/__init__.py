"""Tests of notifier/cli."""
