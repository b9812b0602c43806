"""Tests of notifier/queues/rabbitmq."""
