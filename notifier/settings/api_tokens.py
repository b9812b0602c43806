"""Defines API tokens, and reads the file of them with their scopes and issuers. Keeps only the digests of tokens."""

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, ConfigDict, Field, ValidationError, model_validator

from notifier.model.errors import ConfigurationError, InputIssue
from notifier.model.moment import format_moment_for_people
from notifier.settings.document_files import read_document
from notifier.settings.input_issues import explain
from notifier.settings.secret_text import SecretText
from notifier.settings.values import Name, Section

Scope = Literal["publish", "read", "repair"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiToken:
    """A bearer token, identified by its SHA-256. `name` is the `publisher` of its events, and `who` in audit lines.

    `issuers`: the issuers for which it may publish, list and repair dead letters; None means all issuers. `expires`:
    the end of its validity in epoch seconds; None means no end.
    """

    name: str
    sha256: bytes = field(repr=False)
    scopes: frozenset[Scope]
    issuers: frozenset[str] | None
    expires: float | None = None


EXPIRY_WARNING_SECONDS = 14 * 86_400.0  # long enough to distribute tokens manually


_EMPTY_DIGESTS = frozenset(hashlib.sha256(text).digest() for text in (b"", b"\n", b"\r\n", b" "))
"""The digests of empty texts, such as the output of `printf '%s' "$TOKEN" | sha256sum` for an unset variable."""


class TokenEntry(Section):
    """One member of the tokens file."""

    model_config = ConfigDict(title="token")

    name: Name = Field(min_length=1)
    """The name of its holder, which is the publisher of its events."""
    token: SecretText | None = None
    """The token itself. Give this or `token_sha256`."""
    token_sha256: Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")] | None = None
    """Its SHA-256 in hex."""
    scopes: frozenset[Scope] = Field(min_length=1)
    """The permitted operations."""
    issuers: frozenset[str] | None = None
    """The issuers that it is permitted for. Default: all."""
    expires: AwareDatetime | None = None
    """When it expires. Default: never."""

    @model_validator(mode="after")
    def _check_token(self) -> Self:
        if (self.token is None) == (self.token_sha256 is None):
            raise ValueError("give either token or token_sha256")
        if self.digest() in _EMPTY_DIGESTS:
            raise ValueError("token_sha256 is the digest of an empty text; compute it from the token")
        return self

    def digest(self) -> bytes:
        """Return the SHA-256 of the token."""
        if self.token_sha256 is not None:
            return bytes.fromhex(self.token_sha256)
        assert self.token is not None
        return hashlib.sha256(self.token.get_secret_value().encode()).digest()


def load_tokens(path: Path, issuers: Collection[str] | None = None) -> tuple[ApiToken, ...]:
    """Return the tokens of the file, in its order. Raises ConfigurationError with all errors.

    If `issuers` are given, a token for any other issuer is an error.
    """
    document = read_document(path)
    if not isinstance(document, list):
        text = "must be a list of tokens, each with name, scopes, token or token_sha256, and issuers if not all"
        raise ConfigurationError([InputIssue(path.name, text)])
    mistakes: list[InputIssue] = []
    tokens: list[ApiToken] = []
    names: dict[str, int] = {}
    digests: dict[bytes, int] = {}
    for index, raw in enumerate(document):
        place = f"{path.name}[{index}]"
        try:
            entry = TokenEntry.model_validate(raw)
        except ValidationError as error:
            mistakes += explain(error, TokenEntry, place)
            continue
        expires = None if entry.expires is None else entry.expires.timestamp()
        token = ApiToken(
            name=entry.name, sha256=entry.digest(), scopes=entry.scopes, issuers=entry.issuers, expires=expires
        )
        if (first := names.setdefault(token.name, index)) != index:
            mistakes.append(
                InputIssue(f"{place}.name", f"is also the name of {path.name}[{first}]; each token needs its own")
            )
        if (first := digests.setdefault(token.sha256, index)) != index:
            mistakes.append(InputIssue(f"{place}", f"is the same token as {path.name}[{first}]; create another"))
        unknown = sorted((token.issuers or frozenset()).difference(issuers)) if issuers is not None else []
        mistakes += [InputIssue(f"{place}.issuers", f"{iss} is not configured under issuers") for iss in unknown]
        tokens.append(token)
    if mistakes:
        raise ConfigurationError(mistakes)
    return tuple(tokens)


def find_expiring_tokens(tokens: Iterable[ApiToken], now: float) -> Iterator[InputIssue]:
    """Yield a warning for each token that has expired or expires within EXPIRY_WARNING_SECONDS."""
    for token in tokens:
        if token.expires is not None and token.expires < now + EXPIRY_WARNING_SECONDS:
            tense = "has expired" if token.expires <= now else "expires"
            moment = format_moment_for_people(token.expires)
            text = f"{tense} at {moment}: create another, and give it to the holder of this one"
            yield InputIssue(f"api.tokens_file: token {token.name!r}", text)
