"""Cleans and checks the rows that the readers of registry sources receive, except files.

A row is the metadata of one client. Secrets, and members unrelated to logout, are dropped at once. `authority.py`
decides later which of the remaining values the source may set.
"""

import asyncio
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from notifier.configuration.clients.authority import redact_options
from notifier.configuration.clients.client_metadata import suggest_member
from notifier.configuration.clients.client_rows import (
    HeldRow,
    Row,
    RowKey,
    SharedTexts,
    SourceAnswer,
    intern_names,
    row_key,
)
from notifier.model.defaults import MAX_LIST_ROWS
from notifier.model.documents.cloudevents import MAX_TEXT_LENGTH
from notifier.model.egress import MAX_URI_LENGTH, find_uri_issue
from notifier.model.errors import InputIssue, SourceFault
from notifier.model.origins import origin_of
from notifier.network.http.issuer_document import present_members
from notifier.network.http.json_client import LIST_BOUNDS
from notifier.network.http.json_parts import OutOfBounds, format_size
from notifier.settings.clients import ClientMetadata
from notifier.tokens.foreign_keys import keep_used_keys, read_jwks, to_public_jwk

_ROW_MEMBERS = frozenset(ClientMetadata.model_fields) | {"aliases"}
_PLAIN_MEMBERS = frozenset(
    ("client_id", "client_name", "issuer", "backchannel_logout_uri", "backchannel_logout_session_required")
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # events cannot contain such a name, and it must not reach logs
MAX_NAME_CHARS = 60  # characters of a misspelt name
MAX_EXAMINED_NAMES = 50  # unknown names of one reading that are compared with the known ones, at 0.4 ms each
MAX_HELD_VALUES = LIST_BOUNDS.values // 4  # in lists and objects of all rows, such as redirect URIs, of 400 bytes each
ROWS_PER_STEP = 250  # rows, after which the thread pauses to let the worker's event loop run
PAUSE_SECONDS = 0.001  # seconds


def clean_row(raw: object, path: str, last: Row | None = None, examined: set[str] | None = None) -> Row | InputIssue:
    """Return the members of a row that notifier uses, or the row's error. Null and empty values count as absent.

    `path` names the client in the error if it has no valid `client_id`. `last`: the client's row in the previous
    answer. It is returned, without further checks, if the new row is equal. `examined`: the unknown names of earlier
    rows that were compared with the known names.
    """
    if not isinstance(raw, dict):
        return InputIssue(path, "must be the metadata of a client")
    row = intern_names(present_members({name: value for name, value in raw.items() if name in _ROW_MEMBERS}))
    jwks = row.pop("jwks", None)
    keys = read_jwks(jwks) if jwks is not None and "id_token_encrypted_response_alg" in row else None
    if keys is not None:  # most clients sign with their keys, and want nothing encrypted
        row["jwks"] = {} if isinstance(keys, str) else {"keys": [*map(to_public_jwk, keep_used_keys(keys))]}
    if isinstance(row.get("notifier"), dict):
        row["notifier"] = redact_options(row["notifier"])
    misspelt = _find_misspelt(raw, set() if examined is None else examined)
    client_id = row.get("client_id")
    if misspelt is not None:
        text = f"there is no member {misspelt}; did you mean {suggest_member(misspelt)}?"
        return InputIssue(client_id if isinstance(client_id, str) else path, text)
    if last is not None and row == last:
        return last
    if not isinstance(client_id, str):
        return InputIssue(path, "has no client_id" if client_id is None else "client_id must be a text")
    if len(client_id) > MAX_TEXT_LENGTH or _CONTROL.search(client_id) is not None:
        return InputIssue(path, f"client_id must have at most {MAX_TEXT_LENGTH} characters, and no control characters")
    if not _is_unicode(row):
        return InputIssue(path, "has a text that is not valid Unicode (a lone surrogate)")
    is_key_fault = (
        isinstance(keys, str) and isinstance(jwks, dict) and "keys" in jwks
    )  # such as a set that is too large
    error = f"jwks {keys}" if is_key_fault and "backchannel_logout_uri" in row else _find_error(row)
    return row if error is None else InputIssue(client_id, error)


def _is_unicode(row: dict[str, Any]) -> bool:
    """Return False if a string cannot be encoded for log and cache, such as `"\\ud800"`, which JSON allows."""
    try:
        for value in row.values():
            if not isinstance(value, str):
                json.dumps(value, ensure_ascii=False, default=str).encode()
            elif not value.isascii():
                value.encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


def _find_misspelt(raw: Mapping[Any, object], examined: set[str]) -> str | None:
    """Return a member whose name resembles a known one. Adds up to MAX_EXAMINED_NAMES unknown names to `examined`."""
    for name in raw:
        if name in _ROW_MEMBERS or not isinstance(name, str) or len(name) > MAX_NAME_CHARS:
            continue
        if name not in examined and len(examined) < MAX_EXAMINED_NAMES:
            examined.add(name)
        if name in examined and suggest_member(name) is not None:
            return name
    return None


def _find_error(row: dict[str, Any]) -> str | None:
    uri = row.get("backchannel_logout_uri")
    if uri is not None:
        text = find_uri_issue(uri) if isinstance(uri, str) else "must be a text"
        if text is None and len(uri) > MAX_URI_LENGTH:
            text = f"must have at most {MAX_URI_LENGTH} characters"
        if text is not None:
            return f"backchannel_logout_uri {text}"
    aliases = row.get("aliases", [])
    if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
        return "aliases must be a list of texts"
    section = row.get("notifier", {})
    if not isinstance(section, dict):
        return "notifier must hold notifier's settings of this client, by name"
    return None


class ListAmount:
    """Counts the rows of a source that are kept. The source chooses their number and sizes.

    A row that names several issuers counts once for each, since it is a client of each. Rows are counted by the memory
    of their clients: members that are not plain count as a further row, a `jwks_uri` and each alias as another one.
    A text takes the bytes of its largest character for each of its characters: 4 with one emoji. The values in lists
    and objects are counted too, since a short text takes 60 bytes.
    """

    def __init__(self) -> None:
        self._row_count = 0
        self._byte_count = 0
        self._value_count = 0

    def add(self, row: Row | InputIssue) -> None:
        """Count a row, or an unusable client. Raises SourceFault if the source has more than a list may have."""
        if isinstance(row, InputIssue):
            self._row_count += 1
            self._byte_count += _held_bytes(row.path) + _held_bytes(row.text)
        else:
            issuer, aliases = row.get("issuer"), row.get("aliases")
            times = max(1, len(issuer)) if isinstance(issuer, list) else 1
            further = (
                (len(aliases) if isinstance(aliases, list) else 0)
                + ("jwks_uri" in row)
                + (not row.keys() <= _PLAIN_MEMBERS)
            )
            self._row_count += times * (1 + further)
            for value in row.values():
                text = value if type(value) is str else repr(value)
                self._byte_count += _held_bytes(text)
                if text is not value:
                    self._value_count += text.count(",")
        if self._row_count > MAX_LIST_ROWS:
            raise SourceFault(f"its list has more than {MAX_LIST_ROWS:,} rows")
        if self._byte_count > LIST_BOUNDS.answer:
            raise SourceFault(f"its list has more than {format_size(LIST_BOUNDS.answer)} of client metadata")
        if self._value_count > MAX_HELD_VALUES:
            raise SourceFault(f"its list has more than {MAX_HELD_VALUES:,} values in lists and objects")


def _held_bytes(text: str) -> int:
    """Return the bytes that the characters of a text take in memory."""
    if text.isascii():
        return len(text)
    largest = max(text)
    return len(text) * (1 if largest < "\u0100" else 2 if largest < "\U00010000" else 4)


class RowCollector:
    """Collects the clients of one reading. An unchanged row is the same object as in the last answer.

    A client may be there twice with equal values, because a list can shift while its pages are read. If the values
    differ, the later row counts, or both rows are refused if clients must be `unique`.
    """

    def __init__(self, last: SourceAnswer | None, *, unique: bool = False) -> None:
        self._last = last
        self._unique = unique
        self._last_rows = {} if last is None else {row_key(row): row for row in last.rows}
        self._rows: dict[RowKey, Row] = {}
        self._faults: dict[str, InputIssue] = {}
        self._named_faults = 0
        self._texts = SharedTexts()
        self._examined: set[str] = set()
        self._amount = ListAmount()
        self._shared_names: dict[tuple[str, ...], tuple[str, ...]] = {}
        self.count = 0

    def add(self, raw: object) -> None:
        """Add a client, or record why it cannot be used. `raw`: the row, or an error found by the reader.

        Raises SourceFault if the source has more than a list may have.
        """
        # Most rows are unchanged, and need no further checks.
        last = self._last_rows.get(row_key(raw)) if isinstance(raw, dict) and "client_id" in raw else None
        path = f"[{self.count}]"
        if isinstance(raw, OutOfBounds):
            raw = InputIssue(path, raw.text)
        if last is not None and last == raw:
            row: Row | InputIssue = last
        else:
            row = raw if isinstance(raw, InputIssue) else clean_row(raw, path, last, self._examined)
        self.count += 1
        if isinstance(row, InputIssue):
            self.refuse(row)
            return
        self._amount.add(row)
        key = row_key(row)
        if self._unique and self._differs(key, row):
            if self._rows.get(key) != row:
                self._rows.pop(key, None)
            text = "is there twice, with different values; give each row its issuer"
            self.refuse(InputIssue(str(row["client_id"]), text))
            return
        last = self._last_rows.get(key)
        # The object of the last answer, if the row is equal. Rows are seldom compared, since most are that object.
        is_equal = last is not None and (last is row or last == row)
        self._rows[key] = last if last is not None and is_equal else HeldRow.of(row, self._shared_names, last)

    def _differs(self, key: RowKey, row: Row) -> bool:
        """Return True if an earlier row of the client has other values, or was refused."""
        return self._rows.get(key, row) != row or str(row["client_id"]) in self._faults

    def refuse(self, fault: InputIssue) -> None:
        """Record an unusable client. Raises SourceFault as `add`."""
        self._amount.add(fault)
        if fault.path not in self._faults and not fault.path.startswith("["):
            self._named_faults += 1
        self._faults[fault.path] = InputIssue(fault.path, self._texts[fault.text])

    async def add_all(self, raws: Iterable[object]) -> None:
        """Add many clients, with pauses."""
        for raw in raws:
            self.add(raw)
            if self.count % ROWS_PER_STEP == 0:
                await asyncio.sleep(PAUSE_SECONDS)

    @property
    def known_count(self) -> int:
        """The number of clients known by name, including unusable ones."""
        return len(self._rows) + self._named_faults

    def names(self) -> frozenset[str]:
        """Return the `client_id` of all clients, including unusable ones."""
        return frozenset(str(row["client_id"]) for row in self._rows.values()) | self._faults.keys()

    def has_missing_clients(self) -> bool:
        """Return True if a client of the last answer is missing."""
        names = self.names()
        return any(str(row["client_id"]) not in names for row in self._last_rows.values())

    def answer(self, at: float) -> SourceAnswer:
        """Return the answer. If nothing differs, return the object of the last answer. `at`: epoch seconds."""
        rows, faults, last = list(self._rows.values()), tuple(self._faults.values()), self._last
        if last is not None and faults == last.faults:
            unchanged_count = sum(self._last_rows.get(key) is row for key, row in self._rows.items())
            if unchanged_count == len(rows) == len(last.rows):  # the order of the rows may differ
                return last
        return SourceAnswer(rows=rows, at=at, faults=faults)


def redirect_uris(listed: object, front_channel: object = None) -> list[str] | None:
    """Return the redirect URIs with an exact origin; None if there are none.

    Only the server can decide which origins a pattern matches. If there is a pattern, the origin of the `front_channel`
    URI is therefore accepted as an origin of the client (F1).
    """
    uris = [uri for uri in listed if isinstance(uri, str)] if isinstance(listed, list | tuple) else []
    exact = [uri for uri in uris if "*" not in (origin_of(uri) or "*")]
    has_pattern = any("*" in uri or uri.startswith("regexp=") for uri in uris if uri not in exact)
    front_origin = origin_of(front_channel) if isinstance(front_channel, str) else None
    if has_pattern and front_origin is not None:
        exact.append(front_origin)
    return exact or None
