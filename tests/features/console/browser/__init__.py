"""The console in real browsers, on running workers."""
