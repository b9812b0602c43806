"""The worker as it ships, but for parsers that crash: an event whose `reason` names an exception raises it.

    python crashed_by.py run -c …

`reading: X` raises X as the event is read, `planning: X` once its first client has been planned.
"""

import builtins
from collections.abc import Callable, Iterator

from notifier.cli import main
from notifier.domain import plan
from notifier.domain.delivery import Delivery
from notifier.domain.event_document import Understood
from notifier.domain.message import Message
from notifier.domain.registry import Registry
from notifier.domain.session_ended import SessionEnded
from notifier.pipeline import intake

_read: Callable[..., Understood] = vars(intake)["understand"]
_plan: Callable[[SessionEnded, Registry], Iterator[Delivery | plan.Skipped]] = plan.deliveries


def _raise(reason: str | None, when: str) -> None:
    asked, _, name = (reason or "").partition(": ")
    if asked == when:
        raise vars(builtins)[name]("made for a test")


def reading(message: Message, **options: object) -> Understood:
    """As `understand`."""
    found = _read(message, **options)
    _raise(found.event.reason, "reading")
    return found


def planning(event: SessionEnded, registry: Registry) -> Iterator[Delivery | plan.Skipped]:
    """As `plan.deliveries`."""
    for step in _plan(event, registry):
        yield step
        _raise(event.reason, "planning")


if __name__ == "__main__":
    vars(intake)["understand"] = reading
    vars(plan)["deliveries"] = planning
    main()
