"""Input that nobody would write: events, properties, documents and answers, made up and mutated by the thousand."""
