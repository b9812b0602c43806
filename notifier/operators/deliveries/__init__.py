"""Dead letters and pending deliveries: list, replay, discard, cancel and retry, for commands and the API.

Open `repair_pass` first: it selects messages and passes over them. `repair` has the operations on them.
"""
