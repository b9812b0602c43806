"""Tests of notifier/network/listeners."""
