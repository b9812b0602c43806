"""Events in the words of their own servers: mappings, envelopes, doors, proofs."""
