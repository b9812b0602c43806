"""Events that come in over HTTP and from files, and what their publishers hear."""
