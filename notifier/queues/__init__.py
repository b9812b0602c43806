"""The queue as the other rooms use it, and one room for each queue that satisfies it."""
