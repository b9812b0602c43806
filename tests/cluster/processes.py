"""Processes that are gone when what started them is gone, however that ends."""

TIED = ("setpriv", "--pdeathsig", "KILL", "--")
"""Before a command: the kernel kills it with its parent."""
