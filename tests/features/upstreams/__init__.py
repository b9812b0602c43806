"""Tests of notifier/features/upstreams."""
