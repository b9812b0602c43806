"""Settings of relays: identity servers whose logout tokens notifier takes instead of the clients, and delivers."""

from collections.abc import Iterator, Mapping
from typing import Self
from urllib.parse import unquote, urlsplit

from pydantic import model_validator

from notifier.feature import FeatureReport
from notifier.features.upstreams.upstream_settings import check_issuer, issuer_or_only, upstreams_of
from notifier.model.errors import InputIssue
from notifier.model.registry import Registry
from notifier.settings.service_settings import Settings
from notifier.settings.values import IssuerId, PublicAddress, Section, is_in_clear

JTI_PREFIX = "nfr-"
"""The first characters of each `jti` of a token of notifier for an issuer that has a relay: relays refuse it."""


class RelaySettings(Section):
    """The identity server of one of our issuers. It sends its clients' logout tokens to `/relays/NAME/…` of `web`."""

    issuer: IssuerId | None = None
    """Which of `issuers` it is. Left out: the only one."""
    jwks_uri: PublicAddress | None = None
    """The server's own address of its keys, where no proxy leads back here. Left out: from its discovery."""
    allow_http: bool = False
    """Read them over http:// from another machine: an attacker in between can sign in as any user."""

    @model_validator(mode="after")
    def _check_transport(self) -> Self:
        if self.jwks_uri is not None and is_in_clear(self.jwks_uri) and not self.allow_http:
            raise ValueError(
                "jwks_uri must begin with https://, since clients verify ID tokens by these keys; on a network of your"
                " own, where nobody can change what is read, write allow_http: true beside it"
            )
        return self


def relays_of(settings: Settings) -> Mapping[str, RelaySettings]:
    """Return the relays, by name."""
    return settings.sections("relays", RelaySettings)


def relayed_issuers(settings: Settings) -> Mapping[str, str]:
    """Return the issuer of each relay, by the relay's name. A relay for which none is chosen is refused."""
    issuers = {name: issuer_or_only(relay.issuer, settings) for name, relay in relays_of(settings).items()}
    return {name: iss for name, iss in issuers.items() if iss is not None}


def back_channel_path(name: str) -> str:
    """Return the path of a relay's logout tokens."""
    return f"/relays/{name}/backchannel-logout"


def jwks_path(name: str) -> str:
    """Return the path of a relay's joined JWK Set."""
    return f"/relays/{name}/jwks"


def check_relays(settings: Settings, invalid_sections: frozenset[str]) -> Iterator[InputIssue]:
    """Yield all errors. `invalid_sections`: settings sections with an error."""
    issuers = relayed_issuers(settings)
    for name, relay in relays_of(settings).items():
        setting, iss = f"relays.{name}", issuers.get(name)
        if name in upstreams_of(settings):
            yield InputIssue(setting, "is also the name of an upstream, and metrics and logs would mix them: rename it")
        if "issuers" in invalid_sections:
            continue
        yield from check_issuer("relay", name, f"{setting}.issuer", iss, settings)
        if iss is not None and iss in settings.issuers:
            yield from _check_keys(name, relay, iss, settings)
            yield from _check_doubles(name, relay, iss, settings)


def _check_keys(name: str, relay: RelaySettings, iss: str, settings: Settings) -> Iterator[InputIssue]:
    """Yield an error if the keys would be read through notifier itself, or in clear without permission."""
    setting = f"relays.{name}.jwks_uri"
    own = "write the server's own address, which no proxy leads to notifier"
    public = {issuer.jwks_uri for issuer in settings.issuers.values()} - {None}
    if relay.jwks_uri is None:
        if settings.issuers[iss].jwks_uri is not None:
            text = f'is required beside issuers["{iss}"].jwks_uri, the address of the set that clients read: {own}'
            yield InputIssue(setting, text)
        elif urlsplit(iss).scheme == "http" and not relay.allow_http:
            text = f"is not set, and {iss} is http: write an https address, or allow_http: true beside it"
            yield InputIssue(setting, text)
    elif relay.jwks_uri in public:
        yield InputIssue(setting, f"is also issuers.<iss>.jwks_uri, the address of the set that clients read: {own}")
    elif any(unquote(urlsplit(relay.jwks_uri).path).endswith(jwks_path(other)) for other in relays_of(settings)):
        yield InputIssue(setting, f"is the address of a relay's JWK Set: {own}")


def _check_doubles(name: str, relay: RelaySettings, iss: str, settings: Settings) -> Iterator[InputIssue]:
    """Yield an error for each section that does the same, and for another issuer with the same keys."""
    for other, each in relays_of(settings).items():
        if other == name:
            break
        if relayed_issuers(settings).get(other) == iss:
            yield InputIssue(f"relays.{name}", f"is for the same issuer as relays.{other}: keep one of them")
        elif relay.jwks_uri is not None and relay.jwks_uri == each.jwks_uri:
            text = f"is that of relays.{other}, so the server of each issuer could sign tokens of the other"
            yield InputIssue(f"relays.{name}.jwks_uri", text)
    for upstream, section in upstreams_of(settings).items():
        if section.issuer == iss and section.resolve.same_sub is not None:
            text = f"and upstreams.{upstream} with same_sub are for the same issuer: clients would be notified twice"
            yield InputIssue(f"relays.{name}", text)


def relay_warnings(settings: Settings, registry: Registry) -> Iterator[InputIssue]:
    """Yield the warnings: a section without a listener, and clients whose address is a relay."""
    relays = relays_of(settings)
    if settings.web is None:
        text = "has no effect without a section `web`, which opens the listener"
        yield from (InputIssue(f"relays.{name}", text) for name in relays)
    if relays:
        for iss in settings.issuers:
            yield from find_relayed_addresses(iss, settings, registry)


def find_relayed_addresses(iss: str, settings: Settings, registry: Registry) -> Iterator[InputIssue]:
    """Yield a warning for each client of the issuer whose address looks like a relay's.

    That is the address which the server has for the client. The registry needs the client's own, or notifier sends its
    tokens to itself.
    """
    paths = {back_channel_path(name): name for name in relays_of(settings)}
    for client in registry.clients_of(iss).values():
        uri = client.backchannel_logout_uri or ""
        if "/relays/" not in uri and "%" not in uri:  # parsing 100,000 addresses takes 0.3 s
            continue
        path = unquote(urlsplit(uri).path)
        name = next((name for end, name in paths.items() if path.endswith(end)), None)
        if name is not None:
            text = (
                f"its backchannel_logout_uri is the address of relays.{name}, so notifier would send its tokens to"
                " itself: write the client's own address into the registry"
            )
            yield InputIssue(f"client {client.client_id!r}", text)


def report_relays(settings: Settings) -> FeatureReport:
    """Return each relay's issuer and paths, for `notifier check`."""
    members, lines = {}, []
    for name, iss in relayed_issuers(settings).items():
        path, keys_path = back_channel_path(name), jwks_path(name)
        members[name] = {"issuer": iss, "path": path, "jwks_path": keys_path}
        lines.append(f"relay {name}: {iss} posts its clients' tokens to {path}; clients read its keys at {keys_path}")
    return FeatureReport(members={"relays": members}, lines=lines)
