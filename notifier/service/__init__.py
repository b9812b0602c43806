"""The composition root, which alone knows every class. It builds a worker from its configuration, and runs it."""
