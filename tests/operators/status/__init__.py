"""Tests of notifier/operators/status."""
