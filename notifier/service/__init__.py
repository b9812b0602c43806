"""The composition root, which builds a worker from its configuration and runs it. Open `service.py` first."""
