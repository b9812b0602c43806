"""Decides which of the operator's settings apply to requests to a client: headers, certificate, proxy and egress.

Such a setting is granted to origins in files only: the origin of the client's address in a file, and
`notifier.origins`. A list is a registry source that is not a file. If a list moves a client to another origin, its
route is withheld: its deliveries wait until a file names the origin. They are not sent without credentials, because a
gateway's 401 would be final.

`proxy`, `tls.ca_file` and `egress` of `registry.defaults` apply to every address, and so does a client's `ca_file`,
which is not secret and opens no network. For an address that only an event names, only `ca_file` and the stricter parts
of `egress` apply.
"""

from collections.abc import Collection, Iterator, Mapping

from notifier.model.client import Client, ClientKeysSource, EgressPolicy, FrontChannelWay, RetryPolicy, Route, TlsFiles
from notifier.model.client_channel import ClientChannel
from notifier.model.egress import IPNetwork, check_address
from notifier.model.errors import InputIssue
from notifier.model.origins import origin_of
from notifier.model.record import record
from notifier.settings.clients import ClientMetadata, ClientOptions
from notifier.settings.feature_sections import ChannelSection
from notifier.settings.policies import find_hold_error, override_policy

ADDRESSES = frozenset({"backchannel_logout_uri", "frontchannel_logout_uri", "jwks_uri"})
"""The members with addresses. A list may set them."""
_LOGOUT_URIS = ("backchannel_logout_uri", "frontchannel_logout_uri")
_SENT_WITH_KEY_REQUESTS = frozenset({"notifier.proxy", "notifier.egress"})  # requests for keys carry no headers
_NO_ORIGIN = (
    "belongs to the origins that a file names, and none is named: write the client's address in this file, or"
    " notifier.origins: [ORIGIN], its scheme, host and port, such as https://shop.example.com"
)


@record
class RouteGrants:
    """The settings `granted` to the origins `named_origins`, for one client.

    `full_route`: the route with all granted settings. `list_only`: the members with an address of the client that no
    file sets. `origins_at`: the setting to which an operator adds further origins. `has_channel`: the client is
    notified by a channel of a feature.
    """

    full_route: Route
    granted: tuple[str, ...] = ()
    named_origins: frozenset[str] = frozenset()
    list_only: Collection[str] = ()
    origins_at: str = ""
    has_channel: bool = False

    def to_client(self, metadata: ClientMetadata, options: ClientOptions) -> Route:
        """Return the route to the client's logout URI. No list can set the address of a channel."""
        if self.has_channel:
            return self.full_route
        member = "backchannel_logout_uri"
        if metadata.backchannel_logout_uri is None and options.front_channel is FrontChannelWay.SERVER:
            member = "frontchannel_logout_uri"
        return self._find_withheld(member, metadata, self.granted) or self.full_route

    def to_keys(self, metadata: ClientMetadata) -> Route:
        """Return the route to the client's `jwks_uri`.

        The route has no headers. It has our certificate only if a file names its origin, and if the client's
        `backchannel_logout_uri` has the same origin.
        """
        granted = tuple(name for name in self.granted if name in _SENT_WITH_KEY_REQUESTS)
        withheld = self._find_withheld("jwks_uri", metadata, granted)
        if withheld is not None:
            return withheld
        tls, origin = self.full_route.tls, origin_of(metadata.jwks_uri or "")
        if origin not in self.named_origins or origin != origin_of(metadata.backchannel_logout_uri or ""):
            tls = TlsFiles(ca_file=tls.ca_file)
        return Route(egress=self.full_route.egress, tls=tls, proxy=self.full_route.proxy)

    def find_errors(self) -> Iterator[tuple[str, str]]:
        """Yield an error for each of the client's settings that needs an origin in a file, if there is none.

        Without this check a list could choose the server that receives the credentials.
        """
        if not self.named_origins:
            yield from ((member, _NO_ORIGIN) for member in self.granted if member.startswith("notifier."))

    def _find_withheld(self, member: str, metadata: ClientMetadata, granted: Collection[str]) -> Route | None:
        """Return a withheld route if a list has set the address in this member to an origin that no file names.

        None if the route may be used. `granted`: the settings that requests to the address carry.
        """
        uri = getattr(metadata, member)
        if not granted or uri is None or member not in self.list_only:
            return None
        origin = origin_of(uri)
        if origin in self.named_origins:
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
    channel: ClientChannel | None = None,
) -> RouteGrants:
    """Return the grants to a client. `options`: its own options merged with the `defaults` of its issuer."""
    full_route, has_channel = _full_route(options, template), channel is not None
    if full_route is template:
        return RouteGrants(full_route=full_route, has_channel=has_channel)
    own_options, defaults_setting = metadata.notifier or ClientOptions(), f'registry.defaults["{iss}"]'
    base = template.egress if defaults is None else override_policy(template.egress, defaults.egress)
    granted = tuple(_granted_settings(options, own_options, base, defaults_setting))
    uris_in_files = (getattr(metadata, member) for member in _LOGOUT_URIS if member not in list_only)
    origins = {origin_of(uri) for uri in uris_in_files if uri is not None}
    if channel is not None:
        origins.add(origin_of(channel.uri))
    named_origins = frozenset(origin for origin in (*origins, *(options.origins or ())) if origin is not None)
    origins_at = f"{defaults_setting}.origins"
    if own_options.origins is not None or any(member.startswith("notifier.") for member in granted):
        origins_at = "the client's notifier.origins in a file"
    return RouteGrants(
        full_route=full_route, granted=granted, named_origins=named_origins, list_only=list_only, origins_at=origins_at,
        has_channel=has_channel,
    )  # fmt: skip


def find_withheld_reasons(client: Client) -> list[str]:
    """Return why the routes to the client or its keys are withheld, and which origins to add."""
    keys = None if client.encryption is None else client.encryption.keys
    routes = [client.route]
    if isinstance(keys, ClientKeysSource):
        routes.append(keys.route)
    return list(dict.fromkeys(route.withheld for route in routes if route.withheld is not None))


def find_default_errors(defaults: Mapping[str, ClientOptions], retry_of_service: RetryPolicy) -> Iterator[InputIssue]:
    """Yield the errors of `registry.defaults`: a channel or leader, credentials without origins, and invalid times."""
    for iss, options in defaults.items():
        for name in options.model_fields_set:
            if isinstance(getattr(options, name), ChannelSection):
                text = "belongs to one client: its address would get every user of all; write it where it is registered"
                yield InputIssue(f'registry.defaults["{iss}"].{name}', text)
        if options.follows is not None:
            text = f"would make each client of the issuer an address of {options.follows!r}: write it at one client"
            yield InputIssue(f'registry.defaults["{iss}"].follows', text)
        cert_file = None if options.tls is None else options.tls.cert_file
        for member, credential in (("headers", options.headers), ("tls.cert_file", cert_file)):
            if credential and options.origins is None:
                text = "needs origins beside it, of the servers that it is for, such as [https://gateway.example.com]"
                yield InputIssue(f'registry.defaults["{iss}"].{member}', text)
        if options.timeout is not None and (mistake := find_hold_error(options.timeout)) is not None:
            yield InputIssue(f'registry.defaults["{iss}"].timeout', mistake)
        retry = override_policy(retry_of_service, options.retry)
        if retry.base > retry.max_delay:
            yield InputIssue(f'registry.defaults["{iss}"].retry', "base must not be longer than max_delay")


def _granted_settings(
    options: ClientOptions, own_options: ClientOptions, base: EgressPolicy, defaults_setting: str
) -> Iterator[str]:
    """Yield the names of the settings that are used for origins in files only.

    `options`: the `own_options` of the client, merged with the defaults of its issuer. `base`: the egress policy
    without the client's own. `defaults_setting`: the name of the section with the defaults.
    """
    if options.headers:
        yield f"{'notifier' if own_options.headers else defaults_setting}.headers"
    if options.tls is not None and options.tls.cert_file is not None:
        is_own = own_options.tls is not None and own_options.tls.cert_file is not None
        yield f"{'notifier' if is_own else defaults_setting}.tls.cert_file"
    if own_options.proxy is not None:
        yield "notifier.proxy"
    if own_options.egress is not None and _is_wider(override_policy(base, own_options.egress), base):
        yield "notifier.egress"


def _is_wider(policy: EgressPolicy, than: EgressPolicy) -> bool:
    """Return True if the policy may allow a request that `than` does not allow.

    A subnet of an allowed network counts as wider too: it overrides a denied network, because the narrowest decides.
    """
    return (
        (policy.allow_http and not than.allow_http)
        or not set(policy.allow) <= set(than.allow)
        or not set(than.deny) <= set(policy.deny)
    )


def route_of_unregistered(options: ClientOptions, template: Route) -> Route:
    """Return the route to an unregistered client, whose address is in an event. `options`: the issuer's defaults."""
    ca_file = None if options.tls is None else options.tls.ca_file
    if ca_file is None and options.egress is None:
        return template
    tls = template.tls if ca_file is None else TlsFiles(ca_file=ca_file)
    return Route(egress=_intersect(template.egress, override_policy(template.egress, options.egress)), tls=tls)


def _intersect(policy: EgressPolicy, other: EgressPolicy) -> EgressPolicy:
    """Return a policy that allows only requests that both policies allow."""
    return EgressPolicy(
        allow=tuple(network for network in other.allow if _is_allowed(network, policy)),
        deny=tuple(dict.fromkeys((*policy.deny, *other.deny))),
        allow_http=policy.allow_http and other.allow_http,
    )


def _is_allowed(network: IPNetwork, policy: EgressPolicy) -> bool:
    """Return True if the policy allows the whole network. `check_address` applies the rules for single addresses."""
    if network in policy.allow:
        return True
    if network.prefixlen == network.max_prefixlen:
        return check_address(network.network_address, policy) is None
    is_in_allowed = any(_contains(allowed, network) for allowed in policy.allow)
    return is_in_allowed and not any(denied.overlaps(network) for denied in policy.deny)


def _contains(network: IPNetwork, other: IPNetwork) -> bool:
    if network.version != other.version:
        return False
    return network.prefixlen <= other.prefixlen and other.network_address in network


def _full_route(options: ClientOptions, template: Route) -> Route:
    if options.egress is None and options.tls is None and options.proxy is None and not options.headers:
        return template
    return Route(
        egress=override_policy(template.egress, options.egress),
        tls=template.tls if options.tls is None else options.tls.files(),
        proxy=options.proxy,
        headers=tuple((options.headers or {}).items()),
    )
