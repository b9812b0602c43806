"""The settings as types, and how the file that holds them is read."""
