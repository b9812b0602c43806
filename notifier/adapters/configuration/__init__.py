"""The configuration: files into settings, checked and read again when they change."""
