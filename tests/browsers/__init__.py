"""Pages for browsers in real browsers."""
