"""Turns the logout tokens that a relayed identity server sends to its clients into events for these clients.

`aud` names the clients to notify. A token that notifier itself has signed is refused: then a client's address in the
registry is the relay, and the token would return endlessly. `jti` marks such a token, and a signature covers it, so
strangers cannot cause false reports of loops.
"""

from collections.abc import Callable, Sequence

from notifier.features.upstreams.joined_keys import GetOwnJwks
from notifier.features.upstreams.relay_settings import JTI_PREFIX, RelaySettings
from notifier.features.upstreams.server_keys import ServerKeys
from notifier.features.upstreams.upstream import derive_session_end_id
from notifier.features.upstreams.upstream_routes import TokenVerifier
from notifier.features.upstreams.upstream_token import (
    TOKEN_TYPES,
    LogoutTokenVerifier,
    UnacceptedLogout,
    UpstreamResult,
    VerifiedLogout,
)
from notifier.messages.replacements import to_event_message
from notifier.model.client import Algorithm
from notifier.model.message import MessageDraft
from notifier.model.moment import Clock
from notifier.model.record import record
from notifier.model.registry import CurrentRegistry
from notifier.model.session_ended import ClientEntry, SessionEnded
from notifier.model.shared_resources import shared_bound
from notifier.tokens.foreign_keys import to_published_key
from notifier.tokens.security_event_token import KeysUnavailable
from notifier.tokens.signed_content import SignedClaims, SignedContent, read_unverified_claims
from notifier.tokens.transmitter_keys import PublishedSet, VerifyingKey

MAX_AGE_SECONDS = 600.0  # of a token, by its `iat`
MAX_DEAD_LETTERS_PER_HOUR = shared_bound(100)  # of a relay: a server may name clients that the registry does not have
_LOOP = UnacceptedLogout(
    result=UpstreamResult.LOOP,
    description="notifier sent this token: the client's address in the registry is this relay",
)


@record
class RelayRules:
    """The rules for tokens of a relay: for any client, by any algorithm."""

    issuer: str
    max_age: float = MAX_AGE_SECONDS
    client_id: None = None
    algorithms: None = None


class RelayVerifier:
    """Verifies tokens by the `server`'s keys, and refuses tokens of notifier."""

    def __init__(self, server: LogoutTokenVerifier, get_own_jwks: GetOwnJwks) -> None:
        self._server = server
        self._get_own_jwks = get_own_jwks
        self._own = SignedContent(self, sorted(Algorithm), TOKEN_TYPES, "logout_token")

    async def verify(self, token: bytes) -> VerifiedLogout | UnacceptedLogout | KeysUnavailable:
        """Verify a token. Never raises."""
        is_marked = str(read_unverified_claims(token).get("jti", "")).startswith(JTI_PREFIX)
        if is_marked and isinstance(await self._own.verify(token), SignedClaims):
            return _LOOP
        logout = await self._server.verify(token)
        return _LOOP if is_marked and isinstance(logout, VerifiedLogout) else logout

    async def matching_keys(
        self, kid: str | None, alg: str, *, reread: bool = False, **_: object
    ) -> tuple[VerifyingKey, ...]:
        """Return notifier's keys that may verify a token with this header. They are tried once."""
        published = () if reread else tuple(map(to_published_key, self._get_own_jwks()))
        return PublishedSet(published=published, began_at=0.0).matching_keys(kid, alg)


class DeadLetterBudget:
    """Limits the dead letters that one relay causes. `monotonic`: a clock that never jumps."""

    def __init__(self, monotonic: Clock) -> None:
        self._monotonic = monotonic
        self._unknown: list[tuple[float, str, str]] = []  # with the token's id and the client's

    def take_if_allowed(self, token_id: str, unknown: Sequence[str], is_known: Callable[[str], bool]) -> bool:
        """Count a token's clients that the registry does not have, unless that would be too many within an hour.

        Clients that the registry has got since do not count.
        """
        now = self._monotonic()
        self._unknown = [each for each in self._unknown if now - each[0] < 3600.0 and not is_known(each[2])]
        if len(self._unknown) + len(unknown) > MAX_DEAD_LETTERS_PER_HOUR:
            return False
        self._unknown += [(now, token_id, name) for name in unknown]
        return True

    def give_back(self, token_id: str) -> None:
        """Count the clients of a token no longer."""
        self._unknown = [each for each in self._unknown if each[1] != token_id]


@record
class Relay:
    """A configured relay. `iss`: the issuer of the server and of its clients. `keys`: the server's."""

    name: str
    settings: RelaySettings
    iss: str
    verifier: TokenVerifier
    keys: ServerKeys
    dead_letters: DeadLetterBudget
    registry: CurrentRegistry

    def id_of(self, logout: VerifiedLogout) -> str:
        """Return the id of the event. It is the same at all workers.

        It does not depend on `iat`: a server that sends a token again may sign it a second time (Zitadel).
        """
        return derive_session_end_id(self.name, logout.iss, logout.jti, logout.sub, logout.sid, *logout.audiences)

    def to_message(self, logout: VerifiedLogout) -> MessageDraft | UnacceptedLogout:
        """Return the event for all audiences. Each entry has the `sub`, which may be pairwise."""
        registry = self.registry()

        def is_known(client_id: str) -> bool:
            return registry.resolve(self.iss, client_id, None) is not None  # without an address, it is skipped

        unknown = [name for name in logout.audiences if not is_known(name)]
        if unknown and not self.dead_letters.take_if_allowed(self.id_of(logout), unknown, is_known):
            text = f"too many clients are unknown: {MAX_DEAD_LETTERS_PER_HOUR} in an hour may become dead letters"
            return UnacceptedLogout(result=UpstreamResult.DEAD_LETTERS, description=text)
        entries = (ClientEntry(client_id=name, sub=logout.sub) for name in logout.audiences)
        event = SessionEnded(
            id=self.id_of(logout), id_given=True, iss=self.iss, sub=logout.sub, sid=logout.sid,
            clients=tuple(entries), ended_at=logout.iat, publisher=self.name,
        )  # fmt: skip
        return to_event_message(event)

    def on_unpublished(self, token_id: str) -> None:
        """Count no dead letters for the token: none can follow."""
        self.dead_letters.give_back(token_id)
