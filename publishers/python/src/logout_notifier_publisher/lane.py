"""The exchange that an event goes to."""

from enum import StrEnum


class Lane(StrEnum):
    """`events`: single sign-outs. `bulk`: mass logouts, which notifier delivers after these."""

    EVENTS = "events"
    BULK = "bulk"
