"""Tests of notifier/queues/sqlite."""
