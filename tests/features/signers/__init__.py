"""Tests of notifier/features/signers."""
