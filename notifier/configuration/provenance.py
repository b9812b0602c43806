"""Finds the registry source of each value of a client."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from notifier.configuration.clients.authority import bounds_of, limit_row
from notifier.configuration.clients.layer import Layer, keys_of
from notifier.configuration.loading import LoadedConfiguration
from notifier.model.client import ClientKey
from notifier.model.errors import InputIssue
from notifier.model.frozen import frozen, replace
from notifier.model.presets import PRESETS
from notifier.settings.clients import ClientMetadata, ClientOptions
from notifier.tokens.foreign_keys import public_jwks

_HIDDEN = ("headers", "proxy")  # may hold secrets
_SECTIONS = ("retry", "egress", "tls")


@frozen
class EffectiveValue:
    """A value in force, and its origin: a source, `registry.defaults`, a preset or `delivery`."""

    member: str
    value: object
    origin: str


@frozen
class EffectiveClients:
    """The number of a source's clients in force, the number of its rows that are left out, and the reasons."""

    clients: int
    left_out: int
    faults: Sequence[InputIssue]


def effective_clients_of(loaded: LoadedConfiguration, layer: Layer) -> EffectiveClients:
    """Count the clients of a source other than a file, and its left-out rows."""
    issuers, registry = tuple(loaded.settings.issuers), loaded.registry
    ending = f" of registry source {layer.name}"
    faults = [fault for fault in loaded.faults if fault.path.partition(".client_id")[0].endswith(ending)]
    refused = [
        (layer.path(index), why)
        for index, row in enumerate(layer.rows)
        if (why := layer.reason_against(row)) is not None
    ]
    known = {*refused}
    wrong = {fault.path for fault in faults if (fault.path, fault.text) not in known}
    values = {
        key
        for key, index in keys_of(layer, issuers)
        if key[1] in registry.clients_of(key[0]) and layer.path(index) not in wrong
    }
    clients = len({client_id for _, client_id in values})
    return EffectiveClients(clients=clients, left_out=len(refused) + len(wrong), faults=faults)


def sources_of(loaded: LoadedConfiguration) -> dict[ClientKey, list[tuple[str, Mapping[str, Any]]]]:
    """Return the rows of each client with the names of their sources, without values that the source may not set.

    Files come last.
    """
    issuers = tuple(loaded.settings.issuers)
    bounds = {iss: bounds_of(loaded.settings, iss) for iss in issuers}
    rows: dict[ClientKey, list[tuple[Layer, Mapping[str, Any]]]] = {}
    wrong, by_files = {fault.path for fault in loaded.faults}, set()
    additions = []
    for layer in loaded.layers:
        named = set()
        for key, index in keys_of(layer, issuers):
            rows.setdefault(key, []).append((layer, layer.rows[index]))
            named.add(index)
            if layer.file is None and layer.path(index) in wrong and key[1] in loaded.registry.clients_of(key[0]):
                by_files.add(key)  # the values from lists are invalid and have no effect
        additions += [(layer, row) for index, row in enumerate(layer.rows) if index not in named]
    for layer, row in additions:  # settings of a client at any issuer
        if isinstance(row, Mapping) and row.get("issuer") is None:
            for (iss, client_id), parts in rows.items():
                if client_id == row.get("client_id") and layer.applies_to(row, iss):
                    parts.append((layer, row))
    return {
        key: [
            (_source_name(layer), row if layer.file is not None else limit_row(row, bounds[key[0]], layer.authority)[0])
            for layer, row in sorted(parts, key=lambda part: part[0].file is not None)
            if layer.file is not None or key not in by_files
        ]
        for key, parts in rows.items()
    }


def _source_name(layer: Layer) -> str:
    return layer.name if layer.file is None else f"{layer.name} ({layer.file})"


def values_of(
    loaded: LoadedConfiguration, key: ClientKey, parts: Sequence[tuple[str, Mapping[str, Any]]]
) -> list[EffectiveValue]:
    """Return the values of the client, in the order of the documentation."""
    values: dict[str, EffectiveValue] = {}
    for name, row in parts:
        section = row.get("notifier")
        replaced = tuple(f"notifier.{option}." for option in section) if isinstance(section, Mapping) else ()
        values = {member: value for member, value in values.items() if not member.startswith(replaced)}
        values |= {value.member: value for value in _values_in(row, name)}
    options = loaded.settings.registry.defaults.get(key[0])
    if options is not None:
        settings = options.model_dump(mode="json", exclude_unset=True)
        for setting in _flatten_settings(settings, "registry.defaults"):
            values.setdefault(setting.member, setting)
    client = loaded.registry.clients_of(key[0]).get(key[1])
    algorithms = values.get("id_token_signed_response_alg")
    # Of a list of algorithms, show the one in force.
    if client is not None and algorithms is not None and isinstance(algorithms.value, list):
        values[algorithms.member] = replace(algorithms, value=client.token.alg.value)
    preset = None if client is None or client.preset is None else PRESETS.get(client.preset)
    for name in ("typ", "subject", "timeout"):
        if preset is not None and getattr(preset, name) is not None:
            member = f"notifier.{name}"
            values.setdefault(
                member,
                EffectiveValue(
                    member=member, value=getattr(preset, name), origin=f"preset {client.preset}" if client else ""
                ),
            )
    for member, value in _defaults(client).items():
        values.setdefault(member, EffectiveValue(member=member, value=value, origin="default"))
    order = {name: nth for nth, name in enumerate(_members())}
    return sorted(values.values(), key=lambda value: order.get(".".join(value.member.split(".")[:2]), len(order)))


def _values_in(row: Mapping[str, Any], name: str) -> Iterator[EffectiveValue]:
    for member, value in row.items():
        if member == "notifier" and isinstance(value, Mapping):
            yield from _flatten_settings(value, name)
        elif member == "aliases" or (member in ClientMetadata.model_fields and member != "notifier"):
            yield EffectiveValue(member=member, value=public_jwks(value) if member == "jwks" else value, origin=name)


def _flatten_settings(options: Mapping[str, Any], origin: str) -> Iterator[EffectiveValue]:
    """Yield the settings of a section `notifier`. Members of nested sections are separate values."""
    for option, setting in options.items():
        if option in _SECTIONS and isinstance(setting, Mapping):
            for name, value in setting.items():
                yield EffectiveValue(member=f"notifier.{option}.{name}", value=value, origin=origin)
        else:
            yield EffectiveValue(member=f"notifier.{option}", value=_displayed(option, setting), origin=origin)


def _displayed(option: str, value: object) -> object:
    return "(not shown)" if option in _HIDDEN and value is not None else value


def _members() -> Iterator[str]:
    for name in ClientMetadata.model_fields:
        if name == "notifier":
            yield from (f"notifier.{option}" for option in ClientOptions.model_fields)
        else:
            yield name


def _defaults(client: Any) -> dict[str, object]:
    """Return the values in force for members that no source sets."""
    if client is None:
        return {}
    return {
        "backchannel_logout_uri": client.backchannel_logout_uri,
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
