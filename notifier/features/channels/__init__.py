"""The feature `channels`: clients that accept another message than a logout token, with one module for each channel."""
