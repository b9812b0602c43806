"""Tests of notifier/operators."""
