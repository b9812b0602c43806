"""Tests of notifier/delivery."""
