"""Finds the registry source of each value of a client, for `notifier clients` and the console."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from notifier.configuration.clients.authority import bounds_of, limit_row
from notifier.configuration.clients.client_rows import REASON_OMITTED
from notifier.configuration.clients.followers import find_leaders, inherit_rows, leave_out_listed_followers
from notifier.configuration.clients.layer import Layer, client_id_of, keys_of
from notifier.configuration.loading import LoadedConfiguration
from notifier.model.client import Client, ClientKey
from notifier.model.client_channel import ClientChannel
from notifier.model.errors import InputIssue
from notifier.model.presets import PRESETS
from notifier.model.record import copy_record, record
from notifier.settings.clients import ClientMetadata, ClientOptions, TokenOptions
from notifier.settings.feature_sections import ChannelKindSection
from notifier.tokens.foreign_keys import public_jwks

_HIDDEN = ("headers", "proxy")  # may hold secrets
_SECTIONS = ("retry", "egress", "tls", "channel")
_LOGOUT_URI, _ALGORITHM = "backchannel_logout_uri", "id_token_signed_response_alg"
_OF_TOKENS = frozenset(
    {
        _LOGOUT_URI, _ALGORITHM, "backchannel_logout_session_required",
        "id_token_encrypted_response_alg", "id_token_encrypted_response_enc",
        *(f"notifier.{name}" for name in ("preset", *TokenOptions.model_fields)),
    }
)  # fmt: skip
"""The members that concern logout tokens only."""


@record
class EffectiveValue:
    """A value in force, and its origin: a source, `registry.defaults`, a preset or `delivery`."""

    member: str
    value: object
    origin: str


@record
class EffectiveClients:
    """The number of a source's clients in force, the number of its rows that are left out, and their faults."""

    clients: int
    left_out: int
    faults: Sequence[InputIssue]


def effective_clients_of(loaded: LoadedConfiguration, layer: Layer) -> EffectiveClients:
    """Return the counts of a source that is not a file: its clients in force, and its rows that are left out.

    A row is left out if the source may not have its client (refused), or if its values are invalid.
    """
    issuers, registry = tuple(loaded.settings.issuers), loaded.registry
    path_end = f" of registry source {layer.name}"
    faults = [fault for fault in loaded.faults if fault.path.partition(".client_id")[0].endswith(path_end)]
    reasons = ((layer.path(index), layer.reason_against(row)) for index, row in enumerate(layer.rows))
    refused = [(path, reason) for path, reason in reasons if reason is not None]
    refusals = {(path, text) for path, reason in refused for text in (reason, REASON_OMITTED)}
    invalid = {fault.path for fault in faults if (fault.path, fault.text) not in refusals}
    client_ids = {
        client_id
        for (iss, client_id), index in keys_of(layer, issuers)
        if client_id in registry.clients_of(iss) and layer.path(index) not in invalid
    }
    return EffectiveClients(clients=len(client_ids), left_out=len(refused) + len(invalid), faults=faults)


def sources_of(loaded: LoadedConfiguration) -> dict[ClientKey, list[tuple[str, Mapping[str, Any]]]]:
    """Return the rows of each client, each with the name of its source, without values that the source may not set.

    Rows of files come last, since they override other rows.
    """
    issuers = tuple(loaded.settings.issuers)
    bounds = {iss: bounds_of(loaded.settings, iss) for iss in issuers}
    rows: dict[ClientKey, list[tuple[Layer, Mapping[str, Any]]]] = {}
    invalid_rows = {fault.path for fault in loaded.faults}
    built_from_files = set()  # clients whose rows of other sources are invalid and have no effect
    skipped_rows = []  # invalid rows, and settings for the clients of any issuer
    leaders = find_leaders(loaded.layers, issuers)
    for layer in leave_out_listed_followers(loaded.layers, leaders, issuers, lambda: None):
        indexes = set()
        for key, index in keys_of(layer, issuers):
            iss, client_id = key
            rows.setdefault(key, []).append((layer, layer.rows[index]))
            indexes.add(index)
            is_invalid = layer.file is None and layer.path(index) in invalid_rows
            if is_invalid and client_id in loaded.registry.clients_of(iss):
                built_from_files.add(key)
        skipped_rows += [(layer, row) for index, row in enumerate(layer.rows) if index not in indexes]
    for layer, row in skipped_rows:
        if isinstance(row, Mapping) and row.get("issuer") is None:
            for key in ((iss, client_id_of(row)) for iss in issuers if layer.applies_to(row, iss)):
                if key in rows:
                    rows[key].append((layer, row))
    sources: dict[ClientKey, list[tuple[str, Mapping[str, Any]]]] = {}
    names = {layer.name: _source_name(layer) for layer in loaded.layers}
    for key in [*rows]:
        client_rows = rows.pop(key)  # popped: its memory serves for the result
        sources[key] = [
            (
                names[layer.name],
                row if layer.file is not None else limit_row(row, bounds[key[0]], layer.authority, suggest=False)[0],
            )
            for layer, row in sorted(client_rows, key=lambda layer_row: layer_row[0].file is not None)
            if layer.file is not None or key not in built_from_files
        ]
    return sources


def _source_name(layer: Layer) -> str:
    return layer.name if layer.file is None else f"{layer.name} ({layer.file})"


def values_of(
    loaded: LoadedConfiguration, key: ClientKey, rows: Sequence[tuple[str, Mapping[str, Any]]]
) -> list[EffectiveValue]:
    """Return the values in force for the client, in the order of the documentation. `rows`: from `sources_of`.

    A value that a follower takes from its leader has the leader as its origin.
    """
    iss, client_id = key
    values: dict[str, EffectiveValue] = {}
    leader = find_leaders(loaded.layers, tuple(loaded.settings.issuers)).get(key)
    if leader is not None:
        leader_rows = sources_of(loaded).get((iss, leader), ())
        own_rows = [(row, True) for _, row in rows]
        names = [*(f"{leader} (followed)" for _ in leader_rows), *(name for name, _ in rows), f"{leader} (followed)"]
        inherited = inherit_rows([(row, True) for _, row in leader_rows], own_rows)
        rows = [(name, row) for name, (row, _) in zip(names, inherited, strict=False)]
    for source_name, row in rows:
        section = row.get("notifier")
        replaced = tuple(f"notifier.{option}." for option in section) if isinstance(section, Mapping) else ()
        values = {member: value for member, value in values.items() if not member.startswith(replaced)}
        values |= {value.member: value for value in _values_in(row, source_name)}
    for (source_name, text), clients in loaded.registry.beyond.clients.items():
        member, _, why = text.partition(": ")
        if key in clients and member in values and values[member].origin == source_name:  # it is used in part
            values[member] = copy_record(values[member], origin=f"{source_name}; {why}")
    options = loaded.settings.registry.defaults.get(iss)
    if options is not None:
        settings = options.model_dump(mode="json", exclude_unset=True)
        for setting in _flatten_settings(settings, "registry.defaults"):
            values.setdefault(setting.member, setting)
    client = loaded.registry.clients_of(iss).get(client_id)
    algorithms = values.get(_ALGORITHM)
    if client is not None and algorithms is not None and isinstance(algorithms.value, list):
        values[algorithms.member] = copy_record(algorithms, value=client.token.alg.value)  # the algorithm in force
    if client is not None:
        for value in (*_preset_values(client), *_default_values(client)):
            values.setdefault(value.member, value)
        if client.channel is not None:
            values = {value.member: value for value in _values_beside_channel(client, client.channel, values)}
    order = {name: nth for nth, name in enumerate(_members())}
    return sorted(values.values(), key=lambda value: order.get(".".join(value.member.split(".")[:2]), len(order)))


def values_in_force(loaded: LoadedConfiguration, key: ClientKey) -> list[EffectiveValue]:
    """Return the values in force for the client. Takes 1 s with 100,000 clients."""
    has_rows = any(layer.rows for layer in loaded.layers)
    return values_of(loaded, key, sources_of(loaded).get(key, ())) if has_rows else _values_with_file(loaded, key)


def describe_pausing_source(loaded: LoadedConfiguration | None, key: ClientKey) -> str:
    """Return that a registry source pauses the client, so that it is not called after a resume, with its name."""
    values = [] if loaded is None else values_in_force(loaded, key)
    origin = next((each.origin for each in values if each.member == "notifier.paused"), "the registry")
    return f"{origin} has paused: true for it, so it is still paused"


def _values_with_file(loaded: LoadedConfiguration, key: ClientKey) -> list[EffectiveValue]:
    """Return the values of a client where the only source is a file, whose rows are not kept in memory.

    A value is from the file if an unregistered client would have another value by default.
    """
    unregistered = Client(iss=key[0], client_id=key[1], backchannel_logout_uri=None)
    registry = dataclasses.replace(loaded.registry, clients={key[0]: {key[1]: unregistered}})
    without_row = dataclasses.replace(loaded, registry=registry)
    defaults = {value.member: value.value for value in values_of(without_row, key, ())}
    [source] = loaded.settings.registry.all_sources
    file = f"{source.source_name} ({source.file and source.file.name})"
    return [
        copy_record(value, origin=value.origin.replace("default", file, 1))
        if value.origin.partition(";")[0] == "default" and defaults.get(value.member) != value.value
        else value
        for value in values_of(loaded, key, ())
    ]


def _preset_values(client: Client) -> Iterator[EffectiveValue]:
    preset = None if client.preset is None else PRESETS.get(client.preset)
    if preset is None:
        return
    for name in ("typ", "subject", "timeout"):
        value = getattr(preset, name)
        if value is not None:
            yield EffectiveValue(member=f"notifier.{name}", value=value, origin=f"preset {client.preset}")


def _values_beside_channel(
    client: Client, channel: ClientChannel, values: Mapping[str, EffectiveValue]
) -> Iterator[EffectiveValue]:
    """Yield the values of a client with a channel, and each setting of the channel. Unused members are marked so.

    Defaults of unused members are omitted.
    """
    section = f"notifier.channel.{channel.kind}"
    plain = Client(iss=client.iss, client_id=client.client_id, backchannel_logout_uri=None)
    defaults = {value.member: value.value for value in _default_values(plain)}
    for member, value in values.items():
        if member not in _OF_TOKENS or (member == _ALGORITHM and channel.signed):
            if member != section:
                yield value
        elif value.origin != "default" or value.value != defaults.get(member):
            yield copy_record(value, origin=f"{value.origin}; not used, since the client has a channel")
    origin = values[section].origin if section in values else "default"
    if isinstance(channel.settings, ChannelKindSection):
        for name, setting, setting_origin in channel.settings.values_in_force():
            yield EffectiveValue(member=f"{section}.{name}", value=setting, origin=setting_origin or origin)


def _values_in(row: Mapping[str, Any], source_name: str) -> Iterator[EffectiveValue]:
    for member, value in row.items():
        if member == "notifier":
            if isinstance(value, Mapping):
                yield from _flatten_settings(value, source_name)
        elif member == "jwks":
            yield EffectiveValue(member=member, value=public_jwks(value), origin=source_name)
        elif member == "aliases" or member in ClientMetadata.model_fields:
            yield EffectiveValue(member=member, value=value, origin=source_name)


def _flatten_settings(options: Mapping[str, Any], origin: str) -> Iterator[EffectiveValue]:
    """Yield the settings of a section `notifier`. Members of nested sections are separate values."""
    for option, setting in options.items():
        if option in _SECTIONS and isinstance(setting, Mapping):
            for name, value in setting.items():
                yield EffectiveValue(member=f"notifier.{option}.{name}", value=value, origin=origin)
        else:
            value = "(not shown)" if option in _HIDDEN and setting is not None else setting
            yield EffectiveValue(member=f"notifier.{option}", value=value, origin=origin)


def _members() -> Iterator[str]:
    for name in ClientMetadata.model_fields:
        if name == "notifier":
            yield from (f"notifier.{option}" for option in ClientOptions.model_fields)
        else:
            yield name


def _default_values(client: Client) -> list[EffectiveValue]:
    """Return the client's values of the members that have a default. They are in force if nothing else sets them."""
    values: dict[str, object] = {
        _LOGOUT_URI: client.backchannel_logout_uri,
        "backchannel_logout_session_required": client.backchannel_logout_session_required,
        "id_token_signed_response_alg": client.token.alg.value,
        **({} if client.encryption is None else {"id_token_encrypted_response_enc": client.encryption.enc.value}),
        "subject_type": "pairwise" if client.pairwise else "public",
        "notifier.typ": client.token.typ or "none",
        "notifier.subject": client.token.subject.value,
        "notifier.timeout": client.timeout,
        "notifier.max_concurrent": client.max_concurrent,
        "notifier.max_age": client.retry.max_age,
        "notifier.paused": client.paused,
    }
    return [EffectiveValue(member=member, value=value, origin="default") for member, value in values.items()]
