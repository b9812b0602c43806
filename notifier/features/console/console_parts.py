"""Declares the requests of the console to all workers: the parts of the data, and their types."""

from typing import Annotated

from pydantic import ConfigDict, Field, StrictBool, TypeAdapter, with_config
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.features.console.recent import SERIES
from notifier.operators.status.worker_requests import FiniteSeconds, ReportedCount, RequestKind


class _Wanted(TypedDict, total=False):
    event_id: str
    subject: str


_Keys = list[tuple[str, str]]  # of clients


class _PartMembers(TypedDict, total=False):
    clients: _Keys | None
    clients_of: dict[str, _Keys]
    steps: ReportedCount
    answers_of: tuple[str, str]
    acts: StrictBool
    after: dict[str, ReportedCount]
    well: StrictBool
    find: _Wanted
    issuers: list[str] | None


class _EntryRow(TypedDict):
    n: ReportedCount
    at: str
    kind: str
    iss: str
    client_id: str
    event_id: str | None
    reason: str | None
    status: ReportedCount | None
    seconds: FiniteSeconds | None
    attempt: ReportedCount | None
    next_due: str | None
    text: str


@with_config(ConfigDict(extra="allow"))
class _AuditRow(TypedDict):
    at: str
    action: str


class _Parts(TypedDict, total=False):
    states: list[str]
    steps: list[Annotated[list[ReportedCount], Field(min_length=1 + len(SERIES), max_length=1 + len(SERIES))]]
    answers: list[_EntryRow]
    minutes: list[tuple[ReportedCount, ReportedCount, ReportedCount]]
    acts: list[_AuditRow]
    rows: list[_EntryRow]
    last: ReportedCount
    since: FiniteSeconds


CONSOLE_PARTS = RequestKind(name="console", members=TypeAdapter(_PartMembers), result=TypeAdapter(_Parts))
