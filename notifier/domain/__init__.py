"""The pure core: what an event, a client, a delivery, an outcome and a verdict are. No I/O, no event loop, no clock."""
