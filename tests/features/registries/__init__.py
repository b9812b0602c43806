"""Tests of notifier/features/registries."""
