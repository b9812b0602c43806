"""How many workers are needed, from measured costs."""
