"""Tests of notifier/operators/terminal."""
