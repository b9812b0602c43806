"""Detects deferrals whose cause an operator must remove, and marks the first of each issuer or client for the log.

A wrong `iss` or `client_id`, or a key that cannot sign, defers deliveries for minutes without an error. So the first
deferral is logged with the most similar registered name as a hint, and `notifier status` shows the cause while it
lasts. Publishers may send any names, so their number is limited, per issuer and for all unknown issuers together.

This module also detects the end of a cause: an attempt was possible, or a key signs again. Then it calls
`on_cause_end`, which fetches the deliveries that are still deferred for that cause.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import structlog

from notifier.delivery.admission import UNKNOWN_TEXTS
from notifier.delivery.facts import DeadLettered, Deferred, Fact, LogoutDelivered, Observer, RetryScheduled
from notifier.model.moment import Clock
from notifier.model.nearest import Hint, suggest_client, suggest_issuer
from notifier.model.outcome import Cause
from notifier.model.record import copy_record
from notifier.model.registry import Registry
from notifier.model.shared_resources import shared_bound
from notifier.model.trouble import Trouble, TroubleKind

MAX_NAMES_PER_ISSUER = 100  # of one kind; all unknown issuers together count as one issuer
MAX_NAMES = shared_bound(2_000)
# Seconds after the last due time until a cause counts as ended: another worker may have attempted the delivery.
KEEP_SECONDS = 300.0
MAX_SEARCHES, SEARCHES_PER_SECOND = 10, 4.0  # burst and rate: a search for a similar name may take 10 ms
DUE_SOON_SECONDS = 4.0  # a delivery that is due this soon need not be fetched
FORGET_INTERVAL_SECONDS = 1.0  # limits the cost of many invented names
_HOURS = re.compile(r"[0-9.]{1,12} h ")
_REPORTED_CAUSES = (
    Cause.SIGNING, Cause.ENCRYPTION, Cause.TLS_FILES, Cause.PROXY, Cause.ORIGIN, Cause.ACCESS_TOKEN,
    Cause.OPEN_FILES,
)  # fmt: skip
_KINDS: Mapping[Cause, TroubleKind] = {cause: TroubleKind[cause.name] for cause in _REPORTED_CAUSES}
_CAUSES: Mapping[TroubleKind, Cause] = {
    **{kind: cause for cause, kind in _KINDS.items()},
    TroubleKind.UNKNOWN_CLIENT: Cause.UNKNOWN,
}
_ISSUER_TROUBLES = (TroubleKind.SIGNING, TroubleKind.OPEN_FILES)  # concern all clients of an issuer
CLIENT_TROUBLES = tuple(kind for kind in _CAUSES if kind not in _ISSUER_TROUBLES)

_Key = tuple[TroubleKind, str, str, str]
"""Kind, issuer, client (empty: all clients of the issuer), and for these the text of the fault without its age."""
_Group = tuple[TroubleKind, str]
"""Kind and issuer (empty: all unknown issuers). The number of names is limited per group."""


@dataclass(slots=True)
class _OpenDeferral:
    """A cause that defers deliveries now. Times are in epoch seconds.

    `until` is the time after which the cause counts as ended, without a further deferral. `count` is the number of
    deferred deliveries. `searched` is True once a similar name was searched for the hint. `clients` has the deferred
    clients, if the cause concerns an issuer.
    """

    since: float
    until: float = 0.0
    count: int = 0
    text: str = ""
    hint: Hint | None = None
    searched: bool = False
    clients: set[str] = field(default_factory=set)


class DeferralWatch:
    """Passes each fact to `next_observer`. Before, it sets `first` and `hint` of deferrals."""

    def __init__(
        self,
        next_observer: Observer,
        registry: Callable[[], Registry],
        clock: Clock,
        on_cause_end: Callable[[Cause, str, str], None] = lambda _cause, _iss, _client_id: None,
    ) -> None:
        """`on_cause_end` receives a cause that has ended, its issuer and its client (empty: all clients)."""
        self._next_observer = next_observer
        self._on_cause_end = on_cause_end
        self._registry = registry
        self._clock = clock
        self._open: dict[_Key, _OpenDeferral] = {}
        self._groups: Counter[_Group] = Counter()  # number of names
        self._issuer_wide: dict[str, set[_Key]] = {}  # by issuer
        self._forgot_at = 0.0
        self._searches, self._searches_at = float(MAX_SEARCHES), clock()
        self._unlisted: dict[_Group, tuple[float, int]] = {}  # beyond the limits: start, and number of deliveries
        self._log = structlog.get_logger()

    def observe(self, fact: Fact) -> None:
        """Record a fact, and pass it to the next observer."""
        if type(fact) is Deferred:
            fact = self._mark(fact)
        elif self._open:
            self._check_end(fact)
        self._next_observer(fact)

    def _check_end(self, fact: Fact) -> None:
        """End the causes that the fact shows to have ended."""
        match fact:
            case LogoutDelivered() | RetryScheduled():
                self._on_attempt(*fact.delivery.key)
            case DeadLettered():
                self._on_dead_letter(fact)

    def troubles(self) -> Iterator[Trouble]:
        """Yield the causes that have not ended."""
        self._forget()
        for key, deferral in self._open.items():
            kind, iss, client_id, _ = key
            hint = self._find_reason_left_out(key)
            if hint is None and deferral.hint is not None:
                hint = deferral.hint.text
            text = f"{deferral.text}; {hint}" if hint else deferral.text
            yield Trouble(
                kind=kind, text=text, since=deferral.since, iss=iss, client_id=client_id, count=deferral.count
            )
        for (kind, iss), (since, count) in self._unlisted.items():
            text = f"there are more than {MAX_NAMES_PER_ISSUER} names, of which the others are not listed"
            yield Trouble(kind=kind, text=text, since=since, iss=iss, subject="others", count=count)

    def on_key_signs(self, iss: str, since: float = float("-inf")) -> None:
        """End the issuer's causes for signing, since a key signs again. The next such deferral begins a new cause.

        `since` is the previous time when the key signed: other workers may have deferred deliveries since then. If
        that was more than DUE_SOON_SECONDS ago, `on_cause_end` is called even if no deferral of this worker is pending.
        """
        now = self._clock()
        keys = [key for key in self._issuer_wide.get(iss, ()) if key[0] is TroubleKind.SIGNING]
        ended = [self._end(key) for key in keys]
        if any(self._is_pending(deferral, now) for deferral in ended) or now - since > DUE_SOON_SECONDS:
            self._on_cause_end(Cause.SIGNING, iss, "")

    def _mark(self, fact: Deferred) -> Deferred:
        """Record a deferral whose cause an operator must remove. Return the fact with `first` and the hint.

        The fact is returned unchanged for other causes, and beyond the limit of recorded names.
        """
        key = self._key_of(fact)
        if key is None:
            return fact
        now = self._clock()
        is_repeated = fact.again if fact.delivery is None else fact.delivery.progress.deferrals > 1
        deferral = self._open.get(key)
        is_first = deferral is None or deferral.until < now
        if is_first:
            deferral = self._begin(key, now, is_repeated=is_repeated)
        if deferral is None:
            return fact
        if not deferral.searched:
            self._search_hint(deferral, key, now)
        deferral.count += not is_repeated
        deferral.text, deferral.until = fact.text, max(deferral.until, fact.due + KEEP_SECONDS)
        concerns_all_clients = not key[2]
        if concerns_all_clients and fact.client_id and len(deferral.clients) < MAX_NAMES_PER_ISSUER:
            deferral.clients.add(fact.client_id)
        publisher = fact.publisher if fact.delivery is None else fact.delivery.publisher
        hint, is_for_publisher = "", False
        reason_left_out = self._find_reason_left_out(key)
        if reason_left_out is not None:
            hint = reason_left_out  # not for the publisher, since it names settings of notifier
        elif deferral.hint is not None:
            hint, is_for_publisher = deferral.hint.text, deferral.hint.concerns(publisher)
        return copy_record(fact, first=is_first, hint=hint, hint_for_publisher=is_for_publisher)

    def _key_of(self, fact: Deferred) -> _Key | None:
        """Return the key of the cause; None if it ends without an operator."""
        if fact.cause is Cause.UNKNOWN:
            if not fact.iss:
                return TroubleKind.UNKNOWN_VERSION, "", "", ""
            if fact.iss not in self._registry().issuers:
                return TroubleKind.UNKNOWN_ISSUER, fact.iss, "", ""
            if not fact.client_id:  # an event for all clients: a registry source may have more
                return TroubleKind.UNKNOWN_CLIENT, fact.iss, "*", ""
            if fact.text not in UNKNOWN_TEXTS:  # an internal fault, which is logged as `unexpected`
                return None
            return TroubleKind.UNKNOWN_CLIENT, fact.iss, fact.client_id, ""
        kind = _KINDS.get(fact.cause)
        if kind is None:
            return None
        if kind in _ISSUER_TROUBLES:
            return kind, fact.iss, "", _HOURS.sub("", fact.text)
        return kind, fact.iss, fact.client_id, ""

    def _begin(self, key: _Key, now: float, *, is_repeated: bool) -> _OpenDeferral | None:
        """Store a new cause. If its group or all groups together are full, only count the deferral, and return None."""
        group = _group_of(key)
        if self._is_full(group) and now - self._forgot_at >= FORGET_INTERVAL_SECONDS:
            self._forget()
        if self._is_full(group) and key not in self._open:
            since, count = self._unlisted.get(group, (now, 0))
            if group not in self._unlisted:
                hint = "status shows the first of them, and counts the others"
                self._log.warning(
                    "deferrals_not_listed", cause=str(key[0]), iss=group[1], names=MAX_NAMES_PER_ISSUER, hint=hint
                )
            self._unlisted[group] = since, count + (not is_repeated)
            return None
        self._groups[group] += key not in self._open
        if key[0] in _ISSUER_TROUBLES:
            self._issuer_wide.setdefault(key[1], set()).add(key)
        self._open[key] = _OpenDeferral(since=now)
        return self._open[key]

    def _end(self, key: _Key) -> _OpenDeferral:
        """Remove a cause, and return it."""
        self._groups[_group_of(key)] -= 1
        if key[0] in _ISSUER_TROUBLES:
            self._issuer_wide[key[1]].discard(key)
        return self._open.pop(key)

    def _is_full(self, group: _Group) -> bool:
        return self._groups[group] >= MAX_NAMES_PER_ISSUER or len(self._open) >= MAX_NAMES

    def _search_hint(self, deferral: _OpenDeferral, key: _Key, now: float) -> None:
        """Search the hint of the cause if the rate of searches permits. Otherwise the next deferral tries again."""
        self._searches = min(MAX_SEARCHES, self._searches + max(0.0, now - self._searches_at) * SEARCHES_PER_SECOND)
        self._searches_at = now
        if self._searches >= 1:
            self._searches -= 1
            deferral.searched, deferral.hint = True, self._find_hint(key)

    def _find_reason_left_out(self, key: _Key) -> str | None:
        """Return why the registry left out an unknown client, if a registry source has an invalid row for it."""
        kind, iss, client_id, _ = key
        if kind is not TroubleKind.UNKNOWN_CLIENT:
            return None
        reason = self._registry().why_left_out(iss, client_id)
        return None if reason is None else f"its row is left out: {reason}"

    def _find_hint(self, key: _Key) -> Hint | None:
        """Return a hint with the most similar registered name, if the issuer or client is unknown."""
        kind, iss, client_id, _ = key
        if kind is TroubleKind.UNKNOWN_ISSUER:
            return suggest_issuer(iss, self._registry())
        if kind is TroubleKind.UNKNOWN_CLIENT:
            return suggest_client(iss, client_id, self._registry())
        return None

    def _on_attempt(self, iss: str, client_id: str) -> None:
        """End a client's causes, since an attempt was possible. A cause of its issuer ends with its last client."""
        client_keys: list[_Key] = [(kind, iss, client_id, "") for kind in CLIENT_TROUBLES]
        ended = [key for key in client_keys if key in self._open]
        ended_for_client = [*ended]
        for key in self._issuer_wide.get(iss, ()):
            deferral = self._open[key]
            if client_id in deferral.clients:
                ended_for_client.append(key)
                deferral.clients.remove(client_id)
            if not deferral.clients:
                ended.append(key)
        pending = [key for key in ended_for_client if self._is_pending(self._open[key], self._clock())]
        for cause in {_CAUSES[key[0]] for key in pending}:
            self._on_cause_end(cause, iss, client_id)
        for key in ended:
            deferral = self._end(key)
            self._log.info("deferral_over", cause=str(key[0]), iss=iss, client_id=key[2], put_off=deferral.count)

    def _on_dead_letter(self, fact: DeadLettered) -> None:
        """Subtract a deferred delivery that became a dead letter. A cause without deferred deliveries ends."""
        for key in (
            (TroubleKind.UNKNOWN_CLIENT, fact.iss, fact.client_id, ""),
            (TroubleKind.UNKNOWN_ISSUER, fact.iss, "", ""),
        ):
            deferral = self._open.get(key)
            if deferral is not None:
                deferral.count -= 1
                if deferral.count <= 0:
                    self._end(key)

    def _is_pending(self, deferral: _OpenDeferral, now: float) -> bool:
        """Return True if the last of its deliveries is due in more than DUE_SOON_SECONDS."""
        return deferral.until - KEEP_SECONDS - now > DUE_SOON_SECONDS

    def _forget(self) -> None:
        """Remove causes that have ended: the registry now has the name, or `until` has passed."""
        self._forgot_at, registry = self._clock(), self._registry()
        for key, deferral in list(self._open.items()):
            kind, iss, client_id, _ = key
            is_issuer_known = kind is TroubleKind.UNKNOWN_ISSUER and iss in registry.issuers
            is_client_known = kind is TroubleKind.UNKNOWN_CLIENT and registry.has_address(iss, client_id)
            if is_issuer_known or is_client_known or deferral.until < self._forgot_at:
                self._end(key)
        for group in [group for group in self._unlisted if not self._is_full(group)]:
            del self._unlisted[group]


def _group_of(key: _Key) -> _Group:
    return key[0], "" if key[0] is TroubleKind.UNKNOWN_ISSUER else key[1]
