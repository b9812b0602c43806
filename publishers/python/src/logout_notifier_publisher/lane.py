"""The exchange that an event goes to."""

from enum import StrEnum


class Lane(StrEnum):
    """People who have just signed out, or mass logouts, which wait while the former are served."""

    EVENTS = "events"
    BULK = "bulk"
