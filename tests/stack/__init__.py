"""The stack of deploy/compose.yaml, run from Debian's packages with the same files."""
