"""The composition root: the only place that knows every class. Builds a worker from its configuration, runs it."""
