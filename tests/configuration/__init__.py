"""Tests of notifier/configuration."""
