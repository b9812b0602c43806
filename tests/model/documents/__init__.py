"""Tests of notifier/model/documents."""
