"""The console: pages by which operators look, and act, in a browser."""
