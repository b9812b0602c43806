"""Tests of notifier/operators/doctor."""
