"""Events in the format of other servers: mappings, envelopes, routes, proofs. Start with `source.py`."""
