"""Connects what operators do with dead letters to the queue that has them."""

import getpass
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from aiohttp import web

from notifier.adapters.telemetry.audit import write_audit
from notifier.app.ids import new_id
from notifier.domain.letter_filter import LetterFilter, LetterSummary
from notifier.domain.moment import render_moment
from notifier.domain.readmission import ReplayRules
from notifier.domain.registry import Registry
from notifier.operations.dead_letter_repair import RepairResult
from notifier.operations.queue_port import Queue
from notifier.server.authorization import Authorization
from notifier.server.operators.dead_letter_routes import DeadLetterAccess, DeadLetterRoutes
from notifier.settings import QueueSettings


def audit(action: str, who: str, wanted: LetterFilter, account: RepairResult, **more: object) -> None:
    """One line in the log of what was done by hand, and by whom. A subject is not told, only that one was given."""
    write_audit(
        f"dead_letters_{action}",
        who=who,
        done=account.done,
        by_reason=dict(account.by_reason),
        kept={why.value: count for why, count in account.kept.items()},
        unfinished=account.unfinished,
        wanted=_told(wanted),
        **more,
    )


def audit_discarded(who: str, row: LetterSummary) -> None:
    """A letter that is gone for good."""
    write_audit(
        "dead_letter_discarded",
        who=who,
        id=row.id,
        event_id=row.event_id,
        iss=row.iss,
        client_id=row.client_id,
        reason=row.reason,
        dead_since=render_moment(row.dead_since),
    )


def audit_read(action: str, who: str, wanted: LetterFilter) -> None:
    """Letters are about to be told whole, with `sub` and `sid`."""
    write_audit(f"dead_letters_{action}", who=who, wanted=_told(wanted))


def operating_user() -> str:
    """Who runs this command, as far as the machine knows: `alice@host`, or `root@host (sudo by alice)`."""
    name = "unknown"
    with suppress(OSError, KeyError):  # a user id without a name, as in containers
        name = getpass.getuser()
    by = os.environ.get("SUDO_USER")
    return f"{name}@{socket.gethostname()}" + (f" (sudo by {by})" if by else "")


def dead_letter_routes(
    authorization: Authorization, queue: Queue, settings: QueueSettings, registry: Callable[[], Registry]
) -> list[web.RouteDef]:
    """`/v1/dead-letters` of a worker."""
    desk = DeadLetterAccess(
        letters=queue.dead_letters(),
        rules=lambda force: ReplayRules(
            registry=registry(), new_id=new_id, max_event=settings.max_event, end_newer_sessions=force
        ),
        audit=audit,
        audit_discarded=audit_discarded,
        audit_read=audit_read,
        clock=time.time,
        steady=time.monotonic,
    )
    return DeadLetterRoutes(authorization, desk).routes()


def _told(wanted: LetterFilter) -> Mapping[str, object]:
    narrowing: dict[str, object] = {
        "ids": sorted(wanted.ids)[:20] + (["…"] if len(wanted.ids) > 20 else []),
        "client_id": wanted.client_id,
        "iss": wanted.iss,
        "event_id": wanted.event_id,
        "reasons": sorted(wanted.reasons),
        "since": None if wanted.since is None else render_moment(wanted.since),
        "until": None if wanted.until is None else render_moment(wanted.until),
        "subject": None if wanted.subject is None else "[given]",
        "issuers": None if wanted.issuers is None else sorted(wanted.issuers),
    }
    return {name: value for name, value in narrowing.items() if value} or {"all": True}
