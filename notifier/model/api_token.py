"""A bearer token of the API. Only its digest is kept."""

from dataclasses import dataclass, field
from typing import Literal

Scope = Literal["publish", "read", "repair"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiToken:
    """A token, known by its SHA-256. `name` is the `publisher` of its events, and `who` in audit lines.

    `issuers` are those that it may publish for, and whose dead letters it may see and repair; None: all of them.
    """

    name: str
    sha256: bytes = field(repr=False)
    scopes: frozenset[Scope]
    issuers: frozenset[str] | None
