"""Tests of notifier/network/http."""
