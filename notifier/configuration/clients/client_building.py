"""Builds a client from its metadata, its preset, the defaults of its issuer and the service's defaults, in this order.

A preset has the settings of a known receiver. An encryption key that cannot be fetched or is unsuitable is not a
registration error: the client's deliveries wait for the key. An unusable front-channel address is a warning, since the
client may still be notified by back-channel. If the worker itself calls the address, it is an error.
"""

from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

from notifier.configuration.clients.route_grants import RouteGrants, route_of_unregistered
from notifier.model.client import (
    Algorithm,
    Client,
    ClientKeysSource,
    ContentEncryption,
    Encryption,
    FrontChannelClient,
    FrontChannelWay,
    ResponsePolicy,
    RetryPolicy,
    Route,
    TokenProfile,
)
from notifier.model.egress import check_uri, find_uri_issue
from notifier.model.front_channel import find_front_channel_error
from notifier.model.origins import origin_of
from notifier.model.presets import PRESETS, Preset
from notifier.settings.clients import ClientMetadata, ClientOptions
from notifier.settings.policies import override_policy
from notifier.settings.values import Section
from notifier.tokens.foreign_keys import encryption_key, read_jwks

SharedProfiles = dict[TokenProfile, TokenProfile]
SectionT = TypeVar("SectionT", bound=Section)
_NO_PRESET = Preset(why="")
_DEFAULT_PROFILE = TokenProfile()


def merge_sections(defaults: SectionT, section: SectionT) -> SectionT:
    """Return the section, with the default of each member that it does not set, also in nested sections."""
    members: dict[str, object] = {}
    for name in section.model_fields_set:
        default, value = getattr(defaults, name), getattr(section, name)
        is_nested = isinstance(value, Section) and isinstance(default, Section)
        members[name] = merge_sections(default, value) if is_nested else value
    return defaults.model_copy(update=members)


def build_client(
    iss: str,
    metadata: ClientMetadata,
    options: ClientOptions,
    grants: RouteGrants,
    template: Client,
    profiles: SharedProfiles,
) -> Client:
    """Build a client from its options, its preset and the service's defaults (`template`), in this order.

    `profiles`: the token profiles of the clients built so far, which equal clients share.
    """
    preset = _NO_PRESET if options.preset is None else PRESETS[options.preset]
    route = grants.to_client(metadata, options)
    origins = tuple(dict.fromkeys(filter(None, map(origin_of, metadata.redirect_uris or ()))))
    return Client(
        iss=iss,
        client_id=metadata.client_id,
        follows=options.follows,
        backchannel_logout_uri=metadata.backchannel_logout_uri,
        backchannel_logout_session_required=bool(metadata.backchannel_logout_session_required),
        front_channel=front_channel_of(metadata, options, origins, route),
        off_page=options.front_channel not in (None, FrontChannelWay.BROWSER),
        client_name=metadata.client_name,
        redirect_origins=origins,
        pairwise=metadata.subject_type == "pairwise",
        preset=options.preset,
        paused=options.paused,
        timeout=options.timeout or preset.timeout or template.timeout,
        max_concurrent=template.max_concurrent if options.max_concurrent is None else options.max_concurrent,
        per_second=options.per_second,
        token=_token_profile(metadata.id_token_signed_response_alg, options, preset, profiles),
        encryption=encryption_of(metadata, grants),
        retry=_retry_policy(options, template.retry),
        response=_response_policy(options, template.response),
        route=route,
    )


def build_unregistered_client(template: Client, options: ClientOptions) -> Client:
    """Return the template of an issuer's unregistered clients, whose address is in an event.

    The publisher of the event chooses the address, so requests to it carry no credentials of the operator.
    """
    return replace(
        template,
        timeout=options.timeout or template.timeout,
        max_concurrent=options.max_concurrent or template.max_concurrent,
        per_second=options.per_second or template.per_second,
        retry=_retry_policy(options, template.retry),
        route=route_of_unregistered(options, template.route),
    )


def _token_profile(
    alg: Algorithm | None, options: ClientOptions, preset: Preset, shared: SharedProfiles
) -> TokenProfile:
    """Return the token profile of a client. Clients with equal settings share one object."""
    audience = preset.audience if options.audience is None else options.audience
    default = _DEFAULT_PROFILE
    typ, subject = options.typ or preset.typ or default.typ, options.subject or preset.subject
    profile = TokenProfile(
        alg=alg or default.alg,
        typ=None if typ == "none" else typ,
        subject=subject or default.subject,
        lifetime=options.lifetime or default.lifetime,
        reason_claim=options.reason_claim,
        audience=None if audience == "string" else audience,
        requires=preset.requires,
    )
    profile = shared.setdefault(profile, profile)
    return replace(profile, claims=MappingProxyType(options.claims)) if options.claims else profile


def _retry_policy(options: ClientOptions, default: RetryPolicy) -> RetryPolicy:
    policy = override_policy(default, options.retry)
    if options.max_age is not None:
        policy = replace(policy, max_age=options.max_age)
    if options.sub_only_max_age is not None:
        policy = replace(policy, sub_only_max_age=options.sub_only_max_age)
    return policy


def _response_policy(options: ClientOptions, default: ResponsePolicy) -> ResponsePolicy:
    if not options.success_statuses and not options.retry_statuses:
        return default
    return ResponsePolicy(
        success_statuses=options.success_statuses or frozenset(), retry_statuses=options.retry_statuses or frozenset()
    )


def encryption_of(metadata: ClientMetadata, grants: RouteGrants) -> Encryption | None:
    """Return the client's encryption; None if its tokens are signed only. `jwks` comes before `jwks_uri`."""
    alg, uri = metadata.id_token_encrypted_response_alg, metadata.jwks_uri
    if alg is None:
        return None
    enc = metadata.id_token_encrypted_response_enc or ContentEncryption.A128CBC_HS256
    keys = () if _is_empty(metadata.jwks) else read_jwks(metadata.jwks)
    if isinstance(keys, str):  # an error, which `find_encryption_errors` reports
        return Encryption(alg=alg, enc=enc, keys=())
    if not keys and uri:
        return Encryption(alg=alg, enc=enc, keys=ClientKeysSource(uri=uri, route=grants.to_keys(metadata)))
    key = encryption_key(keys, alg)
    return Encryption(alg=alg, enc=enc, keys=keys if isinstance(key, str) else (key,))


def find_encryption_errors(
    metadata: ClientMetadata, client: Client, *, egress_invalid: bool
) -> Iterator[tuple[str, str]]:
    """Yield the errors of a client with encrypted tokens: each with the member to change.

    A client that gets no logout tokens has no such errors. `egress_invalid`: the section
    `egress` is invalid, so addresses are not checked against it.
    """
    if client.backchannel_logout_uri is None or client.channel is not None:
        return
    uri = metadata.jwks_uri
    if client.encryption is None:
        if metadata.id_token_encrypted_response_enc is not None:
            yield "id_token_encrypted_response_enc", "needs id_token_encrypted_response_alg beside it"
    elif not _is_empty(metadata.jwks) and isinstance(keys := read_jwks(metadata.jwks), str):
        yield "jwks", keys
    elif _is_empty(metadata.jwks) and not uri:
        advice = "needs the client's public keys: register its jwks or jwks_uri, in a file if its source has none"
        yield "id_token_encrypted_response_alg", advice
    elif uri and isinstance(source := client.encryption.keys, ClientKeysSource):
        skips_egress = egress_invalid or source.route.withheld is not None
        text = find_uri_issue(uri) if skips_egress else check_uri(uri, source.route.egress)
        if text is not None:
            yield "jwks_uri", text


def find_follower_errors(metadata: ClientMetadata, client: Client) -> Iterator[tuple[str, str]]:
    """Yield the errors of a further address of another client: each with the member to change."""
    names = f"{metadata.client_id!r} follows {client.follows!r}"
    if metadata.frontchannel_logout_uri is not None:
        text = f"of {names}: a follower is notified by back-channel only; remove this member, or notifier.follows"
        yield "frontchannel_logout_uri", text
    elif metadata.backchannel_logout_uri is None and client.channel is None:
        yield "notifier.follows", f"{names}, and needs an address in this file: write its backchannel_logout_uri"


def _is_empty(jwks: object) -> bool:
    """Return True if no JWK Set is registered: a serializer may write an unset member as an empty one."""
    return jwks is None or jwks in ("", [])


def front_channel_of(
    metadata: ClientMetadata, options: ClientOptions, origins: tuple[str, ...], route: Route
) -> FrontChannelClient | None:
    """Return the client's front-channel settings; None if its URI is unusable or front-channel is off."""
    uri, way = metadata.frontchannel_logout_uri, options.front_channel or FrontChannelWay.BROWSER
    if uri is None or way is FrontChannelWay.OFF:
        return None
    # A withheld route has no egress policy to check the URI by, and sends no request. A browser does not use the route.
    is_withheld = way is FrontChannelWay.SERVER and route.withheld is not None
    if find_front_channel_error(uri, origins, allow_http=is_withheld or route.egress.allow_http) is not None:
        return None
    required = bool(metadata.frontchannel_logout_session_required)
    return FrontChannelClient(frontchannel_logout_uri=uri, frontchannel_logout_session_required=required, way=way)


def find_front_channel_warning(metadata: ClientMetadata, client: Client) -> str | None:
    """Return a warning if browsers cannot call the client's front-channel URI."""
    uri = metadata.frontchannel_logout_uri
    if uri is None or client.front_channel is not None or _is_called_by_server(metadata):
        return None
    text = find_front_channel_error(uri, client.redirect_origins, allow_http=client.route.egress.allow_http)
    return None if text is None else f"of client {metadata.client_id} is not used: it {text}"


def find_server_errors(metadata: ClientMetadata, client: Client, *, egress_invalid: bool) -> Iterator[tuple[str, str]]:
    """Yield the errors of a client whose front-channel URI the worker calls: each with the member to change.

    `egress_invalid`: the section `egress` is invalid, so addresses are not checked against it.
    """
    if not _is_called_by_server(metadata):
        return
    uri, route = metadata.frontchannel_logout_uri, client.route
    if metadata.backchannel_logout_uri is not None:
        text = "is server, but the client is notified by its backchannel_logout_uri; remove one of the two"
        yield "notifier.front_channel", text
    if uri is None:
        yield "notifier.front_channel", "is server, but the client has no frontchannel_logout_uri"
        return
    uri_error = find_uri_issue(uri)
    if uri_error is None and not egress_invalid:
        is_withheld = route.withheld is not None  # such a route has no egress policy
        allow_http = is_withheld or route.egress.allow_http
        uri_error = find_front_channel_error(uri, client.redirect_origins, allow_http=allow_http)
        if uri_error is None and not is_withheld:
            uri_error = check_uri(uri, route.egress)
    if uri_error is not None:
        yield "frontchannel_logout_uri", uri_error


def _is_called_by_server(metadata: ClientMetadata) -> bool:
    """Return True if the worker calls the client's front-channel URI, by the client's own settings."""
    return metadata.notifier is not None and metadata.notifier.front_channel is FrontChannelWay.SERVER
