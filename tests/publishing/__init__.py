"""Tests of notifier/publishing."""
