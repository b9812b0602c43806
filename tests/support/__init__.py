"""Brokers, servers, certificates and receivers that several tests start or share."""
