"""A bearer token of the API. Only its digest is kept."""

from dataclasses import dataclass, field
from typing import Literal

Scope = Literal["publish", "read", "repair"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiToken:
    """A token, identified by its SHA-256. `name` is the `publisher` of its events, and `who` in audit lines.

    `issuers`: the issuers for which it may publish, list and repair dead letters; None means all issuers. `expires`:
    the end of its validity in epoch seconds; None means no end.
    """

    name: str
    sha256: bytes = field(repr=False)
    scopes: frozenset[Scope]
    issuers: frozenset[str] | None
    expires: float | None = None
