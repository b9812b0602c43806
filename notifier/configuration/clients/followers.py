"""Further addresses of clients: an entry of a file with `notifier.follows: CLIENT` is a follower of CLIENT, its leader.

A follower is a client with its own address, circuit and limits. Its tokens are made for its leader, so it takes the
leader's values that determine tokens, unless its own entry sets them. These values come from the leader's rows in all
sources, within the limits of these sources. A follower without a usable leader is left out of the registry, and its
deliveries wait as deliveries of an unknown client do.

Only files define followers. A row of a list that has the `client_id` of a follower is left out, since the list could
otherwise move the follower's address.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from notifier.configuration.clients.client_rows import Row
from notifier.configuration.clients.layer import ROWS_PER_STEP, Layer, client_id_of, issuers_of, merge_rows
from notifier.model.client import ClientKey
from notifier.model.errors import InputIssue
from notifier.model.presets import PRESETS
from notifier.model.record import copy_record
from notifier.model.registry import Followers
from notifier.settings.clients import TokenOptions

_KEY_MEMBERS = frozenset({"jwks", "jwks_uri"})
_TOKEN_MEMBERS = frozenset(
    {"id_token_encrypted_response_alg", "id_token_encrypted_response_enc", "backchannel_logout_session_required"}
)  # not of the requests of other channels
INHERITED_MEMBERS = _KEY_MEMBERS | _TOKEN_MEMBERS | {"id_token_signed_response_alg", "subject_type"}
"""The members that a follower takes from its leader."""
INHERITED_OPTIONS = frozenset({"preset", *TokenOptions.model_fields})
"""The members of `notifier` that a follower takes from its leader."""

Leaders: TypeAlias = Mapping[ClientKey, str]
"""The `client_id` of the leader of each follower. Both have the same issuer."""
SourcedRow: TypeAlias = tuple[Row, bool]
"""A row, and True if it is in a file."""


def is_follower_row(row: Any) -> bool:
    """Return True if the row follows a client. In the row of a list this has no effect."""
    options = row.get("notifier") if isinstance(row, Mapping) else None
    return isinstance(options, Mapping) and options.get("follows") is not None


def has_channel(options: Any) -> bool:
    """Return True if the section `notifier` names a channel of a feature."""
    return isinstance(options, Mapping) and options.get("channel") is not None


def find_leaders(layers: Sequence[Layer], issuers: Sequence[str], pause: Callable[[], None] = lambda: None) -> Leaders:
    """Return the leaders of all followers. Of several rows of a client, the last that has `follows` counts."""
    leaders: dict[ClientKey, str] = {}
    for layer in layers:
        for nth, row in enumerate(() if layer.file is None else layer.rows):
            if nth % ROWS_PER_STEP == ROWS_PER_STEP - 1:
                pause()
            options = row.get("notifier") if isinstance(row, Mapping) else None
            if not isinstance(options, Mapping) or "follows" not in options:
                continue
            for iss in issuers_of(layer, row, issuers):
                leader, key = options["follows"], (iss, row["client_id"])
                if isinstance(leader, str):
                    leaders[key] = leader
                else:
                    leaders.pop(key, None)
    return leaders


def group_followers(leaders: Leaders) -> Mapping[str, Followers]:
    """Return the followers for the registry, by issuer."""
    of: dict[str, dict[str, list[str]]] = {}
    for (iss, client_id), leader in leaders.items():
        of.setdefault(iss, {}).setdefault(leader, []).append(client_id)
    return {
        iss: Followers(of=by_leader, leaders={each: leader for leader, ids in by_leader.items() for each in ids})
        for iss, by_leader in of.items()
    }


def connected_ids(leaders: Leaders, client_ids: Collection[str]) -> set[str]:
    """Return the ids with their leaders, and with all followers of these: a change of one may change the others."""
    if not leaders:
        return {*client_ids}
    led_by = {leader for (_, client_id), leader in leaders.items() if client_id in client_ids}
    connected = led_by.union(client_ids)
    return connected | {client_id for (_, client_id), leader in leaders.items() if leader in connected}


def leave_out_listed_followers(
    layers: Sequence[Layer], leaders: Leaders, issuers: Sequence[str], pause: Callable[[], None]
) -> Sequence[Layer]:
    """Return the layers without the lists' rows of followers. Each such row is a fault of its list."""
    if not leaders:
        return layers
    ids = {client_id for _, client_id in leaders}
    return [layer if layer.file is not None else _leave_out_followers(layer, leaders, ids, issuers, pause)
        for layer in layers]  # fmt: skip


def _leave_out_followers(
    layer: Layer, leaders: Leaders, ids: Collection[str], issuers: Sequence[str], pause: Callable[[], None]
) -> Layer:
    rows: list[Row] = []
    faults: list[InputIssue] = []
    for nth, row in enumerate(layer.rows):
        if nth % ROWS_PER_STEP == ROWS_PER_STEP - 1:
            pause()
        client_id = client_id_of(row)
        row_issuers = _issuers_of_any_row(layer, row, issuers) if client_id in ids else ()
        other_issuers = [iss for iss in row_issuers if (iss, client_id) not in leaders]
        if len(other_issuers) == len(row_issuers):
            rows.append(row)
            continue
        leader = next(leaders[iss, client_id] for iss in row_issuers if (iss, client_id) in leaders)
        faults.append(InputIssue(client_id, explain_listed_follower(client_id, leader)))
        if other_issuers:
            rows.append({**row, "issuer": other_issuers})
    return copy_record(layer, rows=rows, faults=(*layer.faults, *faults)) if faults else layer


def _issuers_of_any_row(layer: Layer, row: Any, issuers: Sequence[str]) -> Sequence[str]:
    """Return the issuers of the row. A row of settings that names none applies to all issuers of its source."""
    found = issuers_of(layer, row, issuers)
    if found or row.get("issuer") is not None or layer.authority is None or layer.reason_against(row) is not None:
        return found
    return [iss for iss in layer.authority.issuers if iss in issuers]


def explain_listed_follower(client_id: str, leader: str) -> str:
    """Return why the row of a list is left out that has the id of a follower, and the remedy."""
    return (
        f"{client_id!r} follows {leader!r} by a file, and only files define a follower: this row is left out; remove"
        f" it from the source, or give the follower another client_id"
    )


def find_listed_followers(layers: Sequence[Layer], issuers: Sequence[str]) -> Iterator[InputIssue]:
    """Yield an error for each row of a list that has the id of a follower."""
    leaders = find_leaders(layers, issuers)
    for before, after in zip(layers, leave_out_listed_followers(layers, leaders, issuers, lambda: None), strict=True):
        for fault in after.faults[len(before.faults) :]:
            yield InputIssue(f"client {fault.path!r} of registry source {before.name}", fault.text)


def find_leader_error(key: ClientKey, leaders: Leaders, issuers_in_files: Collection[str]) -> str | None:
    """Return why the client cannot follow its leader, and the remedy; None if it can, or if the leader is unknown.

    `issuers_in_files`: the issuers at which files have the leader.
    """
    (iss, client_id), leader = key, leaders[key]
    if client_id == leader:
        return f"{client_id!r} follows {leader!r}, itself: name the client of which it is a further address"
    if (next_leader := leaders.get((iss, leader))) is not None:
        remedy = f"write follows: {next_leader}" if next_leader != client_id else "remove one of the two"
        return f"{client_id!r} follows {leader!r}, which follows {next_leader!r}: {remedy}"
    if issuers_in_files and iss not in issuers_in_files:
        other = next(iter(issuers_in_files))
        return (
            f"{client_id!r} of {iss} follows {leader!r}, which is a client of {other}: both must have one issuer;"
            f" write issuer: {other}, or follow a client of {iss}"
        )
    return None


def explain_missing_leader(client_id: str, leader: str, *, left_out: bool) -> str:
    """Return why a follower is left out, and the remedy. `left_out`: a source has its leader, which is unusable."""
    problem = "which is left out: correct that client" if left_out else "which no source has: register that client"
    return f"{client_id!r} follows {leader!r}, {problem}, or correct notifier.follows; until then its logouts wait"


def inherit_rows(leader_rows: Sequence[SourcedRow], own_rows: Sequence[SourcedRow]) -> list[SourcedRow]:
    """Return the rows of a follower: the leader's values that it takes, then its own.

    If the follower has its own preset, the leader's values that this preset sets are omitted. If it has its own keys,
    the leader's are omitted. `subject_type: pairwise` of the leader always applies. A follower
    with a channel of its own takes no settings of logout tokens.
    """
    own = merge_rows([row for row, _ in own_rows])
    own_options = own.get("notifier")
    own_options = own_options if isinstance(own_options, Mapping) else {}
    members = INHERITED_MEMBERS - (_KEY_MEMBERS if _KEY_MEMBERS & own.keys() else set())
    name = own_options.get("preset")
    preset = PRESETS.get(name) if isinstance(name, str) else None
    options = {option for option in INHERITED_OPTIONS if getattr(preset, option, None) is None}
    if has_channel(own_options):
        options.clear()
        members -= _TOKEN_MEMBERS
    inherited = [(_select(row, members, options), is_from_file) for row, is_from_file in leader_rows]
    subject_types = [(row["subject_type"], is_from_file) for row, is_from_file in inherited if "subject_type" in row]
    pairwise = [({"subject_type": value}, is_file) for value, is_file in subject_types[-1:] if value == "pairwise"]
    return [*inherited, *own_rows, *pairwise]


def _select(row: Row, members: Collection[str], options: Collection[str]) -> Row:
    section = row.get("notifier")
    selected: dict[str, Any] = {name: value for name, value in row.items() if name in members}
    if isinstance(section, Mapping):
        selected["notifier"] = {name: value for name, value in section.items() if name in options}
    return selected
