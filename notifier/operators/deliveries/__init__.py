"""Dead letters and pending deliveries: list, replay, discard, cancel and retry, for commands and the API.

A repair replays, discards, cancels or retries messages. Read `repair_pass` first: one pass over a queue that selects
messages and removes or moves them. `repair` has the kinds of repair.
"""
