"""Tests of notifier/operators/letters."""
