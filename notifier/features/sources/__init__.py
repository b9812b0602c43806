"""Events in the words of their own servers: mappings, envelopes, routes, proofs."""
