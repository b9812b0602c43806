"""The queues on which the console is tried."""

from tests.system.conftest import place

__all__ = ["place"]
