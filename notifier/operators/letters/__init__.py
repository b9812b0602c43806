"""Dead letters, and what waits: filters, the pass over them, replay, discard, cancel, retry."""
