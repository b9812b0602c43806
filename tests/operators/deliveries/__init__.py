"""Tests of notifier/operators/deliveries."""
