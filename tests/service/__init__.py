"""Tests of notifier/service."""
