"""Tests of notifier/configuration/clients."""
