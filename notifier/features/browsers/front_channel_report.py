"""Reads what a front-channel page reports of its clients. It is worth a number in a metric, and is never a proof.

A browser can tell that an answer came. It cannot tell its status, nor whether a session ended. The user can forge a
report, and nobody else can.
"""

import json
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from notifier.model.frozen import frozen

LARGEST_REPORT = 8192  # bytes; a client takes 12


class PageEnd(StrEnum):
    """How a page ended: all clients were done, its time was over, or it was left before."""

    DONE = "done"
    LIMIT = "limit"
    LEFT = "left"


class PageResult(StrEnum):
    """What a page knows of a client. `confirmed`: its frame said so. `answered`: an answer came over valid TLS.

    `failed`: no answer came. `unclear`: no answer came that the page may see, but the frame loaded something. `loaded`,
    `silent`: no answer had come by the end, and the frame had loaded, or had not.
    """

    CONFIRMED = "confirmed"
    ANSWERED = "answered"
    FAILED = "failed"
    UNCLEAR = "unclear"
    LOADED = "loaded"
    SILENT = "silent"


class BrowserReach(StrEnum):
    """What the metrics say of a client: it answered the browser, it did not answer, or nobody can tell."""

    REACHED = "reached"
    UNREACHABLE = "unreachable"
    UNKNOWN = "unknown"


REACH: Mapping[PageResult, BrowserReach] = MappingProxyType(
    {
        PageResult.CONFIRMED: BrowserReach.REACHED,
        PageResult.ANSWERED: BrowserReach.REACHED,
        PageResult.FAILED: BrowserReach.UNREACHABLE,
        PageResult.UNCLEAR: BrowserReach.UNKNOWN,
        PageResult.LOADED: BrowserReach.UNKNOWN,
        PageResult.SILENT: BrowserReach.UNKNOWN,
    }
)


@frozen
class PageReport:
    """How a page ended, and what it knows of each client, in the order of its plan."""

    end: PageEnd
    results: tuple[PageResult, ...]


def read_report(body: bytes, clients: int) -> PageReport | None:
    """The report of a page that asked so many clients. None if it is none: too large, or not of this form."""
    if len(body) > LARGEST_REPORT:
        return None
    try:
        document = json.loads(body)
        end, results = PageEnd(document["how"]), tuple(map(PageResult, document["clients"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return PageReport(end=end, results=results) if len(results) == clients else None
