"""Detects deferrals whose cause an operator must remove, and marks the first of each issuer or client.

A wrong `iss` or `client_id`, or a key that cannot sign, defers deliveries silently for minutes. So the first deferral
is logged with the nearest known name, and `notifier status` shows it while it lasts. Invented names take bounded
memory: each issuer has a limit, and all unknown issuers share one.

Only this module detects the end of a cause: an attempt is possible, or a key signs again. Then it calls
`on_cause_end`, which fetches the deliveries that are still pending for that cause.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import MappingProxyType

import structlog

from notifier.delivery.admission import UNKNOWN_TEXTS
from notifier.delivery.facts import DeadLettered, Deferred, Fact, LogoutDelivered, Observer, RetryScheduled
from notifier.model.frozen import replace
from notifier.model.moment import Clock
from notifier.model.nearest import Hint, suggest_client, suggest_issuer
from notifier.model.outcome import Cause
from notifier.model.registry import Registry
from notifier.model.trouble import Trouble, TroubleKind

MAX_NAMES_PER_ISSUER = 100  # names of one issuer and one kind, and of all unknown issuers together
MAX_NAMES = 2_000  # names in all
KEEP_SECONDS = (
    300.0  # seconds after the last due time until an unreported cause counts as ended: other workers may report it
)
MAX_SEARCHES, SEARCHES_PER_SECOND = 10, 4.0  # for similar names: burst, rate; a search among thousands takes 10 ms
DUE_SOON_SECONDS = 4.0  # seconds: deliveries due this soon need not be fetched
FORGET_INTERVAL_SECONDS = 1.0  # seconds: bounds the cost of invented names
CLIENT_TROUBLES = (
    TroubleKind.UNKNOWN_CLIENT,
    TroubleKind.ENCRYPTION,
    TroubleKind.TLS_FILES,
    TroubleKind.PROXY,
    TroubleKind.ORIGIN,
)
_HOURS = re.compile(r"[0-9.]{1,12} h ")
_KINDS = MappingProxyType(
    {
        Cause.SIGNING: TroubleKind.SIGNING,
        Cause.ENCRYPTION: TroubleKind.ENCRYPTION,
        Cause.TLS_FILES: TroubleKind.TLS_FILES,
        Cause.PROXY: TroubleKind.PROXY,
        Cause.ORIGIN: TroubleKind.ORIGIN,
    }
)

_CAUSES = MappingProxyType(
    {kind: cause for cause, kind in _KINDS.items()} | {TroubleKind.UNKNOWN_CLIENT: Cause.UNKNOWN}
)

_Key = tuple[TroubleKind, str, str, str]
"""Kind, issuer, client (empty: all of the issuer), and the text without its age (only for `SIGNING`)."""
_Group = tuple[TroubleKind, str]
"""Kind and issuer (empty: unknown issuers). Limits per group keep invented names from hiding registered clients."""


@dataclass(slots=True)
class _OpenDeferral:
    """The cause of deferred deliveries. `clients`: the clients concerned, if the cause is stored per issuer."""

    since: float
    until: float = 0.0
    count: int = 0
    text: str = ""
    hint: Hint | None = None
    searched: bool = False
    clients: set[str] = field(default_factory=set)


class DeferralWatch:
    """Passes each fact to `next_observer`, and adds `first` and the hint to deferrals."""

    def __init__(
        self,
        next_observer: Observer,
        registry: Callable[[], Registry],
        clock: Clock,
        on_cause_end: Callable[[Cause, str, str], None] = lambda _cause, _iss, _client_id: None,
    ) -> None:
        """`on_cause_end` receives a cause that has ended, its issuer and its client (empty: all of the issuer)."""
        self._next_observer = next_observer
        self._on_cause_end = on_cause_end
        self._registry = registry
        self._clock = clock
        self._open: dict[_Key, _OpenDeferral] = {}
        self._groups: Counter[_Group] = Counter()  # names
        self._signing: dict[str, set[_Key]] = {}  # by issuer
        self._forgot_at = 0.0
        self._searches, self._searches_at = float(MAX_SEARCHES), clock()
        self._unlisted: dict[_Group, tuple[float, int]] = {}  # since when, and how many deliveries
        self._log = structlog.get_logger()

    def observe(self, fact: Fact) -> None:
        """Record a fact, and pass it to the next observer."""
        if type(fact) is Deferred:
            fact = self._mark(fact)
        elif self._open:
            self._check_end(fact)
        self._next_observer(fact)

    def _check_end(self, fact: Fact) -> None:
        match fact:
            case LogoutDelivered() | RetryScheduled():
                self._on_attempt(*fact.delivery.key)
            case DeadLettered():
                self._on_dead_letter(fact)

    def troubles(self) -> Iterator[Trouble]:
        """Return the causes of deferrals that have not ended."""
        self._forget()
        for key, deferral in self._open.items():
            kind, iss, client_id, _ = key
            hint = self._reason_left_out(key) or (deferral.hint and deferral.hint.text)
            text = f"{deferral.text}; {hint}" if hint else deferral.text
            yield Trouble(
                kind=kind, text=text, since=deferral.since, iss=iss, client_id=client_id, count=deferral.count
            )
        for (kind, iss), (since, count) in self._unlisted.items():
            text = f"there are more than {MAX_NAMES_PER_ISSUER} names, of which the others are not listed"
            yield Trouble(kind=kind, text=text, since=since, iss=iss, subject="others", count=count)

    def on_key_signs(self, iss: str, since: float = float("-inf")) -> None:
        """Record that this issuer's deferrals for signing have ended. If they have not, the next deferral reports them.

        `since`: when the key last signed before. Other workers may have deferred deliveries since then.
        """
        now = self._clock()
        pending = [self._is_pending(self._end(key), now) for key in list(self._signing.get(iss, ()))]
        if any(pending) or now - since > DUE_SOON_SECONDS:
            self._on_cause_end(Cause.SIGNING, iss, "")

    def _mark(self, fact: Deferred) -> Deferred:
        key = self._key_of(fact)
        if key is None:
            return fact
        now = self._clock()
        again = fact.again if fact.delivery is None else fact.delivery.deferrals > 1
        deferral = self._open.get(key)
        if is_first := deferral is None or deferral.until < now:
            deferral = self._begin(key, now, again=again)
            if deferral is None:
                return fact
        assert deferral is not None
        if not deferral.searched and self._may_search(now):
            deferral.searched, deferral.hint = True, self._find_hint(key)
        deferral.count += not again
        deferral.text, deferral.until = fact.text, max(deferral.until, fact.due + KEEP_SECONDS)
        if not key[2] and fact.client_id and len(deferral.clients) < MAX_NAMES_PER_ISSUER:
            deferral.clients.add(fact.client_id)
        publisher = fact.publisher if fact.delivery is None else fact.delivery.publisher
        hint, is_for_publisher = (
            ("", False) if deferral.hint is None else (deferral.hint.text, deferral.hint.concerns(publisher))
        )
        if (why := self._reason_left_out(key)) is not None:
            hint, is_for_publisher = why, False  # it names settings of notifier
        return replace(fact, first=is_first, hint=hint, hint_for_publisher=is_for_publisher)

    def _key_of(self, fact: Deferred) -> _Key | None:
        if fact.cause is Cause.UNKNOWN:
            if not fact.iss:
                return TroubleKind.UNKNOWN_VERSION, "", "", ""
            if fact.iss not in self._registry().issuers:
                return TroubleKind.UNKNOWN_ISSUER, fact.iss, "", ""
            if not fact.client_id:  # an event for all clients: a registry source may have more
                return TroubleKind.UNKNOWN_CLIENT, fact.iss, "*", ""
            # Other texts are internal faults, which are logged as `unexpected`.
            known = fact.text in UNKNOWN_TEXTS
            return (TroubleKind.UNKNOWN_CLIENT, fact.iss, fact.client_id, "") if known else None
        if (kind := _KINDS.get(fact.cause)) is None:
            return None
        if kind is TroubleKind.SIGNING:  # the same for all clients of the issuer; only an age in the text changes
            return kind, fact.iss, "", _HOURS.sub("", fact.text)
        return kind, fact.iss, fact.client_id, ""

    def _begin(self, key: _Key, now: float, *, again: bool) -> _OpenDeferral | None:
        """Store a deferral. Return None if its group has reached its limit of names."""
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
            self._unlisted[group] = since, count + (not again)
            return None
        self._groups[group] += key not in self._open
        if key[0] is TroubleKind.SIGNING:
            self._signing.setdefault(key[1], set()).add(key)
        deferral = self._open[key] = _OpenDeferral(since=now)
        return deferral

    def _end(self, key: _Key) -> _OpenDeferral:
        self._groups[_group_of(key)] -= 1
        if key[0] is TroubleKind.SIGNING:
            self._signing[key[1]].discard(key)
        return self._open.pop(key)

    def _is_full(self, group: _Group) -> bool:
        return self._groups[group] >= MAX_NAMES_PER_ISSUER or len(self._open) >= MAX_NAMES

    def _may_search(self, now: float) -> bool:
        """Return True and use one search if the rate permits. The next deferral repeats a refused search."""
        self._searches = min(MAX_SEARCHES, self._searches + max(0.0, now - self._searches_at) * SEARCHES_PER_SECOND)
        self._searches_at = now
        if self._searches < 1:
            return False
        self._searches -= 1
        return True

    def _reason_left_out(self, key: _Key) -> str | None:
        """Return why the current registry lacks a client that a registry source has."""
        kind, iss, client_id, _ = key
        why = self._registry().why_left_out(iss, client_id) if kind is TroubleKind.UNKNOWN_CLIENT else None
        return None if why is None else f"its row is left out: {why}"

    def _find_hint(self, key: _Key) -> Hint | None:
        kind, iss, client_id, _ = key
        if kind is TroubleKind.UNKNOWN_ISSUER:
            return suggest_issuer(iss, self._registry())
        return suggest_client(iss, client_id, self._registry()) if kind is TroubleKind.UNKNOWN_CLIENT else None

    def _on_attempt(self, iss: str, client_id: str) -> None:
        """End the client's causes: an attempt shows that no internal cause defers its deliveries any more."""
        ended = [key for kind in CLIENT_TROUBLES if (key := (kind, iss, client_id, "")) in self._open]
        released = {*ended}
        for key in self._signing.get(iss, ()):
            deferral = self._open[key]
            released |= {key} if client_id in deferral.clients else set()
            deferral.clients.discard(client_id)
            ended += [] if deferral.clients else [key]
        for cause in {_CAUSES[key[0]] for key in released if self._is_pending(self._open[key], self._clock())}:
            self._on_cause_end(cause, iss, client_id)
        for key in ended:
            deferral = self._end(key)
            self._log.info("deferral_over", cause=str(key[0]), iss=iss, client_id=key[2], put_off=deferral.count)

    def _on_dead_letter(self, fact: DeadLettered) -> None:
        """Subtract a deferred delivery that became a dead letter, so that it is no longer counted as pending."""
        for key in (
            (TroubleKind.UNKNOWN_CLIENT, fact.iss, fact.client_id, ""),
            (TroubleKind.UNKNOWN_ISSUER, fact.iss, "", ""),
        ):
            if (deferral := self._open.get(key)) is not None:
                deferral.count -= 1
                if deferral.count <= 0:
                    self._end(key)

    def _is_pending(self, deferral: _OpenDeferral, now: float) -> bool:
        """Return True if a deferred delivery is not due within DUE_SOON_SECONDS."""
        return deferral.until - KEEP_SECONDS - now > DUE_SOON_SECONDS

    def _forget(self) -> None:
        """Forget causes that have ended: the registry now has the name, or KEEP_SECONDS have passed."""
        self._forgot_at, registry = self._clock(), self._registry()
        for key, deferral in list(self._open.items()):
            kind, iss, client_id, _ = key
            known = (kind is TroubleKind.UNKNOWN_ISSUER and iss in registry.issuers) or (
                kind is TroubleKind.UNKNOWN_CLIENT and registry.has_address(iss, client_id)
            )
            if known or deferral.until < self._forgot_at:
                self._end(key)
        for group in [group for group in self._unlisted if not self._is_full(group)]:
            del self._unlisted[group]


def _group_of(key: _Key) -> _Group:
    return key[0], "" if key[0] is TroubleKind.UNKNOWN_ISSUER else key[1]
