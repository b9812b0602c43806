"""What a dead letter, or what waits, most likely meant by a client or issuer that nobody knows: the member `hint`."""

from notifier.model.api_token import ApiToken
from notifier.model.nearest import near_either
from notifier.model.outcome import Cause, DeadReason
from notifier.model.registry import Registry
from notifier.network.listeners.authorization import concerns

MOST = 5  # hints of one answer: each costs some milliseconds of the event loop
_UNKNOWN = frozenset(map(str, (DeadReason.UNKNOWN_CLIENT, DeadReason.UNKNOWN_ISSUER, Cause.UNKNOWN)))


class NameHints:
    """The hints of one answer. `known` is said of a name that is registered by now."""

    def __init__(self, registry: Registry, token: ApiToken | None, *, known: str) -> None:
        self._registry = registry
        self._token = token
        self._known = known
        self._left = MOST

    def of(self, reason: str, iss: str, client_id: str) -> dict[str, object]:
        """The member, if there is a hint. None names an issuer that the token does not cover."""
        if reason not in _UNKNOWN or not self._left:
            return {}
        self._left -= 1
        found = near_either(iss, client_id, self._registry, known=self._known)
        return {"hint": found.text} if found is not None and concerns(self._token, found.whose.iss) else {}
