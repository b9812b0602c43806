"""Tests of notifier/messages."""
