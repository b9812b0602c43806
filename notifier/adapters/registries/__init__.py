"""Where clients are registered: one module for each source."""
