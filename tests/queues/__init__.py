"""Tests of notifier/queues."""
