"""Decides which credentials requests to a client carry, by address: headers, client certificate, proxy and egress.

They belong to the operator and are used only for origins in a file: the origin of the client's address there, and
`notifier.origins`. If a list moves a client to another origin, its route is withheld and its deliveries wait until a
file names the origin. They are not sent without credentials, because a gateway's 401 would be final.

`registry.defaults` apply to all clients of an issuer: `proxy`, `tls.ca_file` and `egress` hold for every address. A
client's `ca_file` does as well: it is not secret and opens no network. For an address that only an event names, only
`ca_file` and the stricter parts of `egress` apply.
"""

from collections.abc import Collection, Iterator, Mapping

from notifier.model.client import Client, ClientKeysSource, EgressPolicy, FrontChannelWay, RetryPolicy, Route, TlsFiles
from notifier.model.egress import IPNetwork, check_address
from notifier.model.errors import InputIssue
from notifier.model.frozen import frozen
from notifier.model.origins import origin_of
from notifier.settings.clients import ClientMetadata, ClientOptions
from notifier.settings.policies import find_hold_error, override_policy

ADDRESSES = frozenset({"backchannel_logout_uri", "frontchannel_logout_uri", "jwks_uri"})
"""The members with addresses. A list may set them."""
_LOGOUT_URIS = ("backchannel_logout_uri", "frontchannel_logout_uri")
_SENT_WITH_KEY_REQUESTS = frozenset({"notifier.proxy", "notifier.egress"})  # requests for keys carry no headers
_NO_ORIGIN = (
    "belongs to the origins that a file names, and none is named: write the client's address in this file, or"
    " notifier.origins: [ORIGIN], its scheme, host and port, such as https://shop.example.com"
)


@frozen
class RouteGrants:
    """The settings `granted` to the origins `named_origins`. `list_only`: its addresses that no file sets.

    `full_route`: the route with all granted settings. `origins_at`: the setting for further origins.
    """

    full_route: Route
    granted: tuple[str, ...] = ()
    named_origins: frozenset[str] = frozenset()
    list_only: Collection[str] = ()
    origins_at: str = ""

    def to_client(self, metadata: ClientMetadata, options: ClientOptions) -> Route:
        """Return the route to the client's logout URI."""
        back, front = _LOGOUT_URIS
        by_worker = options.front_channel is FrontChannelWay.SERVER
        member = back if metadata.backchannel_logout_uri is not None or not by_worker else front
        return self._withheld(member, metadata, self.granted) or self.full_route

    def to_keys(self, metadata: ClientMetadata) -> Route:
        """Return the route to its `jwks_uri`: without headers, and with our certificate only to the client's server."""
        granted = tuple(name for name in self.granted if name in _SENT_WITH_KEY_REQUESTS)
        if (withheld := self._withheld("jwks_uri", metadata, granted)) is not None:
            return withheld
        tls, origin = self.full_route.tls, origin_of(metadata.jwks_uri or "")
        if origin not in self.named_origins or origin != origin_of(metadata.backchannel_logout_uri or ""):
            tls = TlsFiles(ca_file=tls.ca_file)
        return Route(egress=self.full_route.egress, tls=tls, proxy=self.full_route.proxy)

    def find_errors(self) -> Iterator[tuple[str, str]]:
        """Yield the client's own settings without an origin to bind them to: a list could redirect them anywhere."""
        if not self.named_origins:
            yield from ((member, _NO_ORIGIN) for member in self.granted if member.startswith("notifier."))

    def _withheld(self, member: str, metadata: ClientMetadata, granted: Collection[str]) -> Route | None:
        uri = getattr(metadata, member)
        if (
            not granted
            or uri is None
            or member not in self.list_only
            or (origin := origin_of(uri)) in self.named_origins
        ):
            return None
        return Route(
            withheld=f"{member} leads to {origin}, which no file names; if it is right, add it to {self.origins_at}:"
            f" until then nothing is sent, since requests would carry {' and '.join(granted)}"
        )


def route_grants_of(
    iss: str,
    metadata: ClientMetadata,
    options: ClientOptions,
    template: Route,
    *,
    defaults: ClientOptions | None,
    list_only: Collection[str],
) -> RouteGrants:
    """Return the grants to a client. `options`: its own options merged with the `defaults` of its issuer."""
    full_route = _full_route(options, template)
    if full_route is template:
        return RouteGrants(full_route=full_route)
    own, of_defaults = metadata.notifier or ClientOptions(), f'registry.defaults["{iss}"]'
    base = template.egress if defaults is None else override_policy(template.egress, defaults.egress)
    granted = tuple(_granted_settings(options, own, base, of_defaults))
    of_files = (getattr(metadata, member) for member in _LOGOUT_URIS if member not in list_only)
    named_origins = {origin for uri in of_files if uri is not None and (origin := origin_of(uri)) is not None}
    its_own = own.origins is not None or any(member.startswith("notifier.") for member in granted)
    return RouteGrants(
        full_route=full_route,
        granted=granted,
        named_origins=frozenset(named_origins | set(options.origins or ())),
        list_only=list_only,
        origins_at="the client's notifier.origins in a file" if its_own else f"{of_defaults}.origins",
    )


def withheld_routes_of(client: Client) -> list[str]:
    """Return why the routes to the client or its keys are withheld, and which origins to add."""
    keys = None if client.encryption is None else client.encryption.keys
    routes = (client.route, keys.route if isinstance(keys, ClientKeysSource) else client.route)
    return list(dict.fromkeys(route.withheld for route in routes if route.withheld is not None))


def find_default_errors(defaults: Mapping[str, ClientOptions], retry_of_service: RetryPolicy) -> Iterator[InputIssue]:
    """Yield the errors of `registry.defaults`: credentials without origins, and invalid times."""
    for iss, options in defaults.items():
        secret = {"headers": options.headers, "tls.cert_file": options.tls is not None and options.tls.cert_file}
        for member, value in secret.items():
            if value and options.origins is None:
                text = "needs origins beside it, of the servers that it is for, such as [https://gateway.example.com]"
                yield InputIssue(f'registry.defaults["{iss}"].{member}', text)
        if options.timeout is not None and (mistake := find_hold_error(options.timeout)) is not None:
            yield InputIssue(f'registry.defaults["{iss}"].timeout', mistake)
        retry = override_policy(retry_of_service, options.retry)
        if retry.base > retry.max_delay:
            yield InputIssue(f'registry.defaults["{iss}"].retry', "base must not be longer than max_delay")


def _granted_settings(
    options: ClientOptions, own: ClientOptions, base: EgressPolicy, of_defaults: str
) -> Iterator[str]:
    """Yield the settings that are bound to origins."""
    if options.headers:
        yield f"{'notifier' if own.headers else of_defaults}.headers"
    if options.tls is not None and options.tls.cert_file is not None:
        yield f"{'notifier' if own.tls is not None and own.tls.cert_file else of_defaults}.tls.cert_file"
    if own.proxy is not None:
        yield "notifier.proxy"
    if own.egress is not None and _is_wider(override_policy(base, own.egress), base):
        yield "notifier.egress"


def _is_wider(policy: EgressPolicy, than: EgressPolicy) -> bool:
    """Return True if the policy may allow more. The narrowest network decides, so a subnet may open more."""
    return (
        (policy.allow_http and not than.allow_http)
        or not set(policy.allow) <= set(than.allow)
        or not set(than.deny) <= set(policy.deny)
    )


def route_of_unregistered(options: ClientOptions, template: Route) -> Route:
    """Return the route to a client that only an event names, by the defaults of its issuer."""
    ca_file = None if options.tls is None else options.tls.ca_file
    if ca_file is None and options.egress is None:
        return template
    tls = template.tls if ca_file is None else TlsFiles(ca_file=ca_file)
    return Route(egress=_intersect(template.egress, override_policy(template.egress, options.egress)), tls=tls)


def _intersect(policy: EgressPolicy, by: EgressPolicy) -> EgressPolicy:
    """Return the policy that allows what both allow."""
    return EgressPolicy(
        allow=tuple(network for network in by.allow if _is_allowed(network, policy)),
        deny=tuple(dict.fromkeys((*policy.deny, *by.deny))),
        allow_http=policy.allow_http and by.allow_http,
    )


def _is_allowed(network: IPNetwork, policy: EgressPolicy) -> bool:
    """Return True if the policy allows the whole network. `check_address` applies the rules for single addresses."""
    if network in policy.allow:
        return True
    if network.prefixlen == network.max_prefixlen:
        return check_address(network.network_address, policy) is None
    inside = any(_contains(other, network) for other in policy.allow)
    return inside and not any(denied.overlaps(network) for denied in policy.deny)


def _contains(network: IPNetwork, other: IPNetwork) -> bool:
    same = network.version == other.version
    return same and network.prefixlen <= other.prefixlen and other.network_address in network


def _full_route(options: ClientOptions, template: Route) -> Route:
    if options.egress is None and options.tls is None and options.proxy is None and not options.headers:
        return template
    return Route(
        egress=override_policy(template.egress, options.egress),
        tls=template.tls if options.tls is None else options.tls.files(),
        proxy=options.proxy,
        headers=tuple((options.headers or {}).items()),
    )
