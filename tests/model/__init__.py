"""Tests of notifier/model."""
