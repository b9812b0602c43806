"""Events that come in the words of their own servers: mappings, envelopes, routes, proofs."""
