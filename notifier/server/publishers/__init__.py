"""What publishers call."""
