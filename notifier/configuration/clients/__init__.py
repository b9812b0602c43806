"""The clients of a configuration: sources are read again and again, and their metadata become a registry by layers."""
