"""Builds a registry from the registered metadata of clients, from any kind of source.

It is made for 100,000 clients: each client is validated separately, so that an error in one does not hide errors in the
others, and clients share the objects of inherited values.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path
from types import MappingProxyType
from typing import Any

from notifier.configuration.clients.authority import option_names
from notifier.configuration.clients.client_building import (
    SharedProfiles,
    build_client,
    build_unregistered_client,
    find_encryption_errors,
    find_follower_errors,
    find_front_channel_warning,
    find_server_errors,
    merge_sections,
)
from notifier.configuration.clients.client_rows import RowIssues
from notifier.configuration.clients.route_grants import RouteGrants, route_grants_of
from notifier.model.client import Client, ClientKey, SubjectMode
from notifier.model.egress import check_uri, find_uri_issue
from notifier.model.errors import InputIssue
from notifier.model.ignored_members import IgnoredMembers
from notifier.model.nearest import explain_unknown_issuer
from notifier.model.presets import PRESETS
from notifier.model.printable import excerpt, printable, stray_character
from notifier.model.registry import Issuer, Registry
from notifier.model.shared_resources import shared_cache
from notifier.settings.clients import ClientMetadata, ClientOptions
from notifier.settings.feature_sections import ChannelSection
from notifier.settings.input_issues import path_of, validate
from notifier.settings.policies import find_hold_error
from notifier.settings.service_settings import Settings

_NO_OPTIONS = ClientOptions()
_MEMBERS = frozenset(ClientMetadata.model_fields)
MIN_SIMILARITY = 0.9  # of 1: one wrong letter in ten; other members of client metadata resemble ours less


class RegistryBuilder:
    """Builds a registry from the metadata of clients, added one by one. Collects all errors and warnings."""

    def __init__(self, settings: Settings, invalid_sections: frozenset[str] = frozenset()) -> None:
        """`invalid_sections`: the sections of the settings with an error. Checks that depend on them are skipped."""
        self.mistakes, self.warnings = RowIssues(), RowIssues()
        self.unusable_files: set[Path] = set()
        self._settings, self._metadata = settings, settings.client_metadata
        names = option_names(settings)
        self._option_names = names - {"audience"}  # a member of Hydra's clients
        self._feature_options = names - ClientOptions.model_fields.keys()
        self._template = settings.template()
        self._clients: dict[str, dict[str, Client]] = {iss: {} for iss in settings.issuers}
        self._issuers = tuple(settings.issuers)
        self._profiles: SharedProfiles = {}
        self._invalid_sections = invalid_sections
        self._registered_at: dict[tuple[str, str], str] = {}
        self._defaults = settings.registry.defaults
        self._faults: dict[str, dict[str, str]] = {}
        self._refused: dict[str, dict[str, str]] = {}
        self.beyond = IgnoredMembers()
        """The values that were ignored because their source may not set them."""

    def registry(self) -> Registry:
        """Return the registry of the clients added so far."""
        issuers = {
            iss: Issuer(iss=iss, publishers=issuer.publishers, event_types=issuer.event_types)
            for iss, issuer in self._settings.issuers.items()
        }
        return Registry(
            issuers=MappingProxyType(issuers),
            clients=MappingProxyType({iss: MappingProxyType(clients) for iss, clients in self._clients.items()}),
            inline=self._settings.registry.inline,
            grace=self._settings.registry.grace,
            unregistered=self._template,
            unregistered_at=MappingProxyType(
                {iss: build_unregistered_client(self._template, options) for iss, options in self._defaults.items()}
            ),
            faults=self._faults,
            refused=self._refused,
            beyond=self.beyond,
        )

    def leave_out(self, iss: str, client_id: str, reason: str) -> None:
        """Remove a client, and record why it cannot be used."""
        self._clients.get(iss, {}).pop(client_id, None)
        self._faults.setdefault(iss, {})[client_id] = reason

    def sort(self, keys: Iterable[ClientKey]) -> None:
        """Arrange the clients in the order of these keys."""
        for iss, client_id in keys:
            if (client := self._clients[iss].pop(client_id, None)) is not None:
                self._clients[iss][client_id] = client

    def forget_names(self) -> None:
        """Forget the names of the clients added so far, so that further clients may have them."""
        self._registered_at.clear()

    def refuse(self, iss: str, client_id: str, reason: str) -> None:
        """Record why a row was refused: its source may not have this client. Another source may have the client."""
        self._refused.setdefault(iss, {})[client_id] = reason

    def client(self, iss: str, client_id: str) -> Client | None:
        """Return the client if it was added."""
        return self._clients[iss].get(client_id)

    def add(self, raw: object, path: str, context: dict[str, Any], list_only: Collection[str] = ()) -> None:
        """Add a client, or the errors of its metadata. `path` names the client in errors.

        `context` has the folder that relative file names start from. `list_only`: the members with addresses, and
        `backchannel_logout_session_required`, that only registry sources other than files set.
        """
        first_error = len(self.mistakes)
        self._add(raw, path, context, list_only)
        client_id = raw.get("client_id") if isinstance(raw, dict) else None
        if isinstance(client_id, str):
            errors = self.mistakes[first_error:]
            self.mistakes[first_error:] = [replace(error, named=excerpt(client_id)) for error in errors]

    def _add(self, raw: object, path: str, context: dict[str, Any], list_only: Collection[str]) -> None:
        """Add the client at each of its issuers, unless a member is invalid. Inconsistent members are errors too."""
        if isinstance(raw, dict):
            self._check_names(raw, path)
        validated = validate(self._metadata, raw, context, path)
        self.mistakes += validated.mistakes
        self.unusable_files |= validated.unusable_files
        if (metadata := validated.value) is None:
            if isinstance(raw, dict):
                self._check_other_members(raw, validated.invalid_members, path)
            return
        if (stray := stray_character(metadata.client_id)) is not None:
            self.warnings.append(InputIssue(f"{path}.client_id", stray))
        issuers = self._issuers_of(metadata, path)
        errors, warnings = dict[str, str](), dict[str, str]()
        section, without_defaults = self._channel_of(metadata.notifier), None
        own = {name: value for name, value in raw.items() if name not in list_only} if isinstance(raw, dict) else {}
        for iss in issuers or ("",):
            if iss in self._defaults or without_defaults is None:
                client, grants = self._build(iss, metadata, list_only)
                errors |= dict(self._find_errors(metadata, client, grants))
                warnings |= dict(self._find_warnings(metadata, client))
                without_defaults = without_defaults if iss in self._defaults else client
            else:
                client = replace(without_defaults, iss=iss)
            if section is not None:
                errors |= dict(section.find_errors(client, metadata.notifier or _NO_OPTIONS))
                warnings |= dict(section.find_warnings(client, own))
            if issuers:
                self._clients[iss][client.client_id] = client
        self.warnings += [InputIssue(f"{path}.{key}", text) for key, text in warnings.items()]
        self.mistakes += [InputIssue(f"{path}.{key}", text) for key, text in errors.items()]
        self._register_name(metadata.client_id, issuers, path)

    def _check_names(self, raw: dict[str, Any], path: str) -> None:
        """Record misspelt members, and members that belong into the section `notifier`."""
        for name in raw.keys() - _MEMBERS:
            suggestion = suggest_member(str(name))
            if suggestion is not None:
                text = f"there is no such member; did you mean {suggestion}?"
                self.mistakes.append(InputIssue(path_of([str(name)], path), text))
        for name in sorted(name for name in raw.keys() & self._option_names if raw[name] is not None):
            text = f"has no effect here; write notifier: {{{name}: …}}"
            self.warnings.append(InputIssue(path_of([name], path), text))

    def _build(self, iss: str, metadata: ClientMetadata, list_only: Collection[str]) -> tuple[Client, RouteGrants]:
        """Return the client with the defaults of its issuer and of the service, and the operator's grants to it."""
        options = metadata.notifier or _NO_OPTIONS
        if (defaults := self._defaults.get(iss)) is not None:
            options = merge_sections(defaults, options)
        section, template_route = self._channel_of(metadata.notifier), self._template.route
        channel = None if section is None else section.to_channel()
        if channel is not None:
            options = options.model_copy(update={"preset": None})
        grants = route_grants_of(
            iss, metadata, options, template_route, defaults=defaults, list_only=list_only, channel=channel
        )
        client = build_client(iss, metadata, options, grants, self._template, self._profiles)
        if channel is not None:  # a preset, the requirement of a session and encryption concern logout tokens
            client = replace(client, channel=channel, encryption=None, backchannel_logout_session_required=False)
        feature_options = [(name, getattr(options, name, None)) for name in self._feature_options]
        set_options = tuple((name, value) for name, value in feature_options if value is not None)
        return replace(client, options=set_options) if set_options else client, grants

    def _channel_of(self, options: ClientOptions | None) -> ChannelSection | None:
        """Return the section of the client's own options that declares another channel."""
        values = (getattr(options, name, None) for name in self._feature_options)
        return next((value for value in values if isinstance(value, ChannelSection)), None)

    def _check_other_members(self, raw: dict[str, Any], invalid: Collection[int | str], path: str) -> None:
        """Check further members of a client with errors, so that all errors are reported together.

        `invalid`: the names of the members with an error.
        """
        uri = raw.get("backchannel_logout_uri")
        text = find_uri_issue(uri) if isinstance(uri, str) else None
        if text is not None:
            self.mistakes.append(InputIssue(f"{path}.backchannel_logout_uri", text))
        if "issuer" not in invalid:
            client_id = "?" if "client_id" in invalid else raw["client_id"]
            issuers = self._issuers_of(ClientMetadata(client_id=client_id, issuer=raw.get("issuer")), path)
            if "client_id" not in invalid:
                self._register_name(client_id, issuers, path)

    def _register_name(self, client_id: str, issuers: Iterable[str], path: str) -> None:
        """Record the name of a client at these issuers, or an error if another client has it."""
        for iss in issuers:
            first = self._registered_at.setdefault((iss, client_id), path)
            if first is not path:
                text = f"{client_id!r} is registered at {iss} already, by {first}; remove one of the two"
                self.mistakes.append(InputIssue(f"{path}.client_id", text))

    def _find_warnings(self, metadata: ClientMetadata, client: Client) -> Iterator[tuple[str, str]]:
        """Yield each member that has no effect, and its warning."""
        text = None if "egress" in self._invalid_sections else find_front_channel_warning(metadata, client)
        if text is not None:
            yield "frontchannel_logout_uri", printable(text)

    def _find_errors(self, metadata: ClientMetadata, client: Client, grants: RouteGrants) -> Iterator[tuple[str, str]]:
        """Yield each inconsistent member to change, and its error."""
        egress_invalid = "egress" in self._invalid_sections
        yield from self._find_own_errors(client)
        yield from find_server_errors(metadata, client, egress_invalid=egress_invalid)
        if client.follows is not None:
            yield from find_follower_errors(metadata, client)
        yield from find_encryption_errors(metadata, client, egress_invalid=egress_invalid)
        yield from grants.find_errors()

    def _find_own_errors(self, client: Client) -> Iterator[tuple[str, str]]:
        """Yield each inconsistent member of the client itself, and its error."""
        uri, member = client.backchannel_logout_uri, "backchannel_logout_uri"
        if client.channel is not None:
            uri, member = client.channel.uri, client.channel.member
        if uri is not None:
            skips_egress = "egress" in self._invalid_sections or client.route.withheld is not None
            text = find_uri_issue(uri) if skips_egress else check_uri(uri, client.route.egress)
            if text is not None:
                yield member, text
        by_preset = client.preset is not None and PRESETS[client.preset].subject is SubjectMode.SUB
        if client.backchannel_logout_session_required and client.token.subject is SubjectMode.SUB and not by_preset:
            yield (
                "notifier.subject",
                "is sub, but backchannel_logout_session_required needs a sid in each token; use both, sid_first or sid",
            )
        text = find_hold_error(client.timeout)
        if text is not None:
            yield "notifier.timeout", text
        if "delivery" in self._invalid_sections:
            return
        if client.retry.base > client.retry.max_delay:
            yield "notifier.retry", "base must not be longer than max_delay"

    def _issuers_of(self, metadata: ClientMetadata, path: str) -> tuple[str, ...]:
        """Return the configured issuers of a client. Record an error for a missing or unknown issuer."""
        if metadata.issuer == ("*",):
            return self._issuers
        if metadata.issuer is None:
            if "issuers" in self._invalid_sections:
                return ()
            if len(self._issuers) != 1:
                text = f"is required, since there are {len(self._issuers)} issuers"
                self.mistakes.append(InputIssue(f"{path}.issuer", text))
                return ()
            return self._issuers
        unknown = [iss for iss in metadata.issuer if iss not in self._clients]
        if "issuers" in self._invalid_sections:
            unknown = [iss for iss in unknown if iss == "*"]
        for iss in unknown:
            if iss == "*":
                text = '"*" means all issuers; name no other beside it'
            else:
                text = explain_unknown_issuer(iss, self._issuers)
            self.mistakes.append(InputIssue(f"{path}.issuer", text))
        return tuple(dict.fromkeys(iss for iss in metadata.issuer if iss in self._clients))


@shared_cache(1024)
def suggest_member(name: str) -> str | None:
    """Return the member that a misspelt name means; None if the name resembles no member.

    An ignored misspelling could leave a client without notifications.
    """
    plain = name.lower().replace("_", "").replace("-", "")
    for member in _MEMBERS:
        if SequenceMatcher(None, plain, member.replace("_", "")).ratio() > MIN_SIMILARITY:
            return member
    return None
