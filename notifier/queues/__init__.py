"""The queue as everybody uses it; one room for each that satisfies it."""
