"""Tests of notifier/network."""
