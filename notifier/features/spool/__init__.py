"""Keeps the sign-outs of senders that do not retry in files while the queue takes none."""
