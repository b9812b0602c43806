"""Tests of notifier/telemetry."""
