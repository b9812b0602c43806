"""Tests of notifier/features/spool."""
