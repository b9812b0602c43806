"""The registry: an immutable snapshot of issuers and clients. A reload replaces it.

A client is looked up at every attempt, so that a corrected registration also applies to pending deliveries.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from notifier.model.client import Client, Route
from notifier.model.delivery import ClientOverrides, Delivery
from notifier.model.ignored_members import IgnoredMembers, IssueGroup

InlineRule: TypeAlias = Literal["publishers", "allow", "deny"]
"""The publishers whose events may override members of a client, such as its address."""

ENDLESS_SECONDS = math.inf
"""The `grace` while a registry source is unread, which may have the unknown client: deliveries end only by age."""

_NONE: Mapping[str, str] = {}
_NO_MOMENTS: Mapping[str, float] = {}
_UNKNOWN = Client(iss="", client_id="", backchannel_logout_uri=None, registered=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """An OpenID Provider. `publishers` None means any publisher; `event_types` None means any CloudEvents type."""

    iss: str
    publishers: frozenset[str] | None = None
    event_types: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Followers:
    """The further addresses of an issuer's clients, which are clients too: `of` a leader, and the leader of each.

    A follower without a known leader is here, but not among the clients of the registry: its deliveries wait. So do
    those of the `lost` followers, which no file defines any more, for `registry.grace`.
    """

    of: Mapping[str, Sequence[str]]
    leaders: Mapping[str, str]
    lost: frozenset[str] = frozenset()

    def replace_lost(self, lost: Mapping[str, str]) -> "Followers":
        """Return the followers with these `lost` ones, given with their leaders, instead of the present ones."""
        leaders = dict(self.leaders)
        changed = {*lost.values(), *map(leaders.pop, self.lost)}
        of = {leader: [each for each in self.of.get(leader, ()) if each in leaders] for leader in changed}
        for client_id, leader in lost.items():
            of[leader].append(client_id)
        return Followers(of={**self.of, **of}, leaders={**leaders, **lost}, lost=frozenset(lost))


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True)
class Registry:
    """The snapshot. `unregistered` holds the defaults of a client that only an event's inline URI names, and
    `unregistered_at` those at issuers with separate defaults.

    `aliases`: other names of an issuer's clients → `client_id`. `followers`: by issuer, if it has any. `faults`: why a
    client of a source cannot be used, by issuer and `client_id`. `refused`: why a row is left out whose source is not
    permitted to have that client. `beyond`: members that sources set without permission. `taken_aliases`: aliases left
    out because another client has them. `incomplete`: why an issuer may have unknown clients, so that no list of all
    its clients is complete.

    `lost_at`: when a client without an address lost it, or left the registry, by issuer and `client_id`.
    `narrowed_at`: when addresses of events were last restricted to fewer publishers. Both are times of the monotonic
    clock, set by the reload or refresh that replaced the registry.

    A registry of 200,000 clients takes 77 MiB. So what is derived from one keeps no more than a weak reference to it.
    """

    issuers: Mapping[str, Issuer] = field(default_factory=dict)
    clients: Mapping[str, Mapping[str, Client]] = field(default_factory=dict)
    incomplete: Mapping[str, str] = field(default_factory=dict)
    inline: InlineRule = "publishers"
    grace: float = 300.0
    unregistered: Client | None = None
    unregistered_at: Mapping[str, Client] = field(default_factory=dict)
    aliases: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    followers: Mapping[str, Followers] = field(default_factory=dict)
    faults: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    refused: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    beyond: IgnoredMembers = field(default_factory=IgnoredMembers)
    taken_aliases: IssueGroup = field(default_factory=IssueGroup)
    lost_at: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    narrowed_at: float = -math.inf

    def ignored_groups(self) -> Iterator[IssueGroup]:
        """Yield the members that were ignored because sources may not set them, in groups."""
        yield from self.beyond.by_kind()
        if self.taken_aliases.count:
            yield self.taken_aliases

    @property
    def ignored_count(self) -> int:
        """The number of ignored members in all groups of `ignored_groups`."""
        return self.beyond.total + self.taken_aliases.count

    def newly_ignored(self, old: "Registry") -> Iterator[IssueGroup]:
        """Yield the ignored members that `old` does not have, in groups."""
        yield from self.beyond.since(old.beyond)
        old_aliases = set(old.taken_aliases.first)
        aliases = [alias for alias in self.taken_aliases.first if alias not in old_aliases]
        count = max(len(aliases), self.taken_aliases.count - old.taken_aliases.count)
        if count:
            yield IssueGroup(first=aliases, count=count)

    def clients_of(self, iss: str) -> Mapping[str, Client]:
        """Return the registered clients of one issuer by `client_id`, in the order of the file."""
        return self.clients.get(iss, MappingProxyType({}))

    def has_address(self, iss: str, client_id: str) -> bool:
        """Return True if the client is registered with an address at which a worker notifies it."""
        client = self.clients_of(iss).get(client_id)
        return client is not None and client.logout_uri is not None

    def has_just_lost(self, iss: str, client_id: str, monotonic: float) -> bool:
        """Return True if the client lost its address less than `grace` ago, so that it counts as unknown."""
        lost_at = self.lost_at.get(iss, _NO_MOMENTS).get(client_id)
        return lost_at is not None and monotonic < lost_at + self.grace

    def has_former_followers(self, monotonic: float) -> bool:
        """Return True if followers were lost more than `grace` ago, so that they must be dropped."""
        return any(
            not self.has_just_lost(iss, client_id, monotonic)
            for iss, followers in self.followers.items()
            for client_id in followers.lost
        )

    def has_just_narrowed(self, monotonic: float) -> bool:
        """Return True if addresses of events were accepted from more publishers less than `grace` ago."""
        return monotonic < self.narrowed_at + self.grace

    def why_left_out(self, iss: str, client_id: str) -> str | None:
        """Return why a source's client was left out of the registry; None if it was not, also if no source has it."""
        return self.faults.get(iss, _NONE).get(client_id) or self.refused.get(iss, _NONE).get(client_id)

    def accepts_overrides(self, iss: str, publisher: str | None, *, vouched: bool = False) -> bool:
        """Return True if an event may override members of its clients, including the address that receives the token.

        By default it may if it comes from the issuer's identity server: from one of the issuer's `publishers`, or
        `vouched`. If the issuer has no `publishers`, any publisher may publish, and none may override.
        """
        if self.inline != "publishers":
            return self.inline == "allow"
        issuer = self.issuers.get(iss)
        return vouched or (issuer is not None and issuer.publishers is not None and publisher in issuer.publishers)

    def default_of(self, iss: str) -> Client:
        """Return a client with the issuer's defaults, such as the maximal age of deliveries to unknown clients."""
        return self.template_of(iss) or _UNKNOWN

    def client_of(self, delivery: Delivery) -> Client | None:
        """Return the client of the delivery, as `resolve` does.

        Overrides that were ignored when the delivery was made apply if they are accepted now.
        """
        inline, ignored = delivery.inline, delivery.ignored
        if ignored is not None and self.accepts_overrides(delivery.iss, delivery.publisher, vouched=ignored.vouched):
            inline = ignored
        return self.resolve(delivery.iss, delivery.client_id, inline)

    def resolve(self, iss: str, client_id: str, inline: ClientOverrides | None) -> Client | None:
        """Return the client as registered now, with the overrides `inline`; None if it is unknown and has no address.

        `client_id` may be an alias of a registered client. If `inline` has a URI of another origin (scheme, host, port)
        than the registered URI, the client's headers, TLS files, proxy and egress rules do not apply to it. Overrides
        are for logout tokens, so a client with another channel has none.
        """
        registered = self.clients_of(iss).get(client_id)
        if registered is None and (own_id := self.aliases.get(iss, _NONE).get(client_id)) is not None:
            registered = self.clients_of(iss).get(own_id)
        if inline is None or self.inline == "deny" or (registered is not None and registered.channel is not None):
            return registered
        if registered is None:
            template = self.template_of(iss)
            if inline.backchannel_logout_uri is None or template is None or self._follows(iss, client_id):
                return None
            registered = replace(template, iss=iss, client_id=client_id)
        uri = inline.backchannel_logout_uri
        required = inline.backchannel_logout_session_required
        alg = inline.id_token_signed_response_alg
        return replace(
            registered,
            backchannel_logout_uri=registered.backchannel_logout_uri if uri is None else uri,
            backchannel_logout_session_required=(
                registered.backchannel_logout_session_required if required is None else required
            ),
            token=registered.token if alg is None else replace(registered.token, alg=alg),
            route=registered.route if uri is None else self._route_for(uri, registered),
        )

    def template_of(self, iss: str) -> Client | None:
        """Return a client with the defaults of this issuer, for clients that only an event names; None without one."""
        return self.unregistered_at.get(iss, self.unregistered)

    def _follows(self, iss: str, client_id: str) -> bool:
        followers = self.followers.get(iss)
        return followers is not None and client_id in followers.leaders

    def _route_for(self, uri: str, registered: Client) -> Route:
        if registered.backchannel_logout_uri is not None and _origin(uri) == _origin(registered.backchannel_logout_uri):
            return registered.route
        template = self.template_of(registered.iss)
        return Route() if template is None else template.route


def _origin(uri: str) -> tuple[str, str | None, int | None]:
    """Return (scheme, host, port) of a URI (RFC 6454 §4). A missing port is the default port of the scheme."""
    parts = urlsplit(uri)
    scheme = parts.scheme.lower()
    return scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(scheme)


CurrentRegistry = Callable[[], Registry]
"""Returns the current registry."""
