"""Authenticate the sender of a source: by a secret header, an HMAC of the body, a signed token, or SNS's signature.

The result does not reveal which part is wrong. Two secrets may be valid at a time, so that one can be replaced.
"""

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import structlog
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from multidict import MultiMapping

from notifier.features.sources.sns_message import SnsMessage, SnsRefusal, SnsTopic, read_sns
from notifier.features.sources.sns_server import CertificateUnavailable, SnsServer
from notifier.tokens.security_event_token import (
    SET_ALGORITHMS,
    SET_TYPES,
    KeysUnavailable,
    SetError,
    UnacceptedSet,
    VerifiedSet,
    check_claims,
)
from notifier.tokens.signed_content import SignedContent, TokenFault, UnverifiedToken
from notifier.tokens.transmitter_keys import TransmitterKeys

_SET_ERRORS: Mapping[TokenFault, SetError] = {
    TokenFault.MALFORMED: "invalid_request",
    TokenFault.NO_KEY: "invalid_key",
    TokenFault.FORGED: "authentication_failed",
}


class SetVerifier:
    """Verifies Security Event Tokens of `issuer` for `audience`. `clock` returns epoch seconds."""

    def __init__(self, keys: TransmitterKeys, *, issuer: str, audience: str, clock: Callable[[], float]) -> None:
        self._signed = SignedContent(
            keys, SET_ALGORITHMS, SET_TYPES, "the body", accepts=lambda claims: self._find_error(claims) is None
        )
        self._issuer = issuer
        self._audience = audience
        self._clock = clock

    async def verify(self, token: bytes) -> VerifiedSet | UnacceptedSet | KeysUnavailable:
        """Return the verified claims of a token, or why it is not accepted. Never raises."""
        content = await self._signed.verify(token.strip())
        if isinstance(content, KeysUnavailable):
            return content
        if isinstance(content, UnverifiedToken):
            return UnacceptedSet(err=_SET_ERRORS[content.fault], description=content.text)
        error = self._find_error(content.claims)
        return VerifiedSet(claims=content.payload) if error is None else error

    def _find_error(self, claims: Mapping[str, object]) -> UnacceptedSet | None:
        return check_claims(claims, issuer=self._issuer, audience=self._audience, now=self._clock())


@dataclass(frozen=True, slots=True)
class SnsVerifier:
    """Verifies messages of `topic` by certificates that `server` fetches."""

    topic: SnsTopic
    server: SnsServer

    async def verify(self, body: bytes) -> SnsMessage | SnsRefusal | CertificateUnavailable:
        """Return an authentic message, or why it is refused or cannot be verified yet. Never raises."""
        message = read_sns(body, self.topic)
        if isinstance(message, SnsRefusal):
            return message
        key = await self.server.fetch_key(message.certificate)
        if isinstance(key, CertificateUnavailable):
            return key
        algorithm = SHA256() if message.algorithm == "sha256" else SHA1()  # noqa: S303  the default of SNS
        try:
            key.verify(message.signature, message.text, PKCS1v15(), algorithm)
        except InvalidSignature:
            return SnsRefusal(text="the signature is wrong")
        return message

    async def handle_subscription(self, message: SnsMessage, source: str) -> bool:
        """Confirm a new subscription, or log the end of one. Return False if SNS did not accept the confirmation.

        `message`: verified, and not a notification.
        """
        log = structlog.get_logger().bind(source=source, topic_arn=self.topic.arn)
        if message.kind != "SubscriptionConfirmation" or message.subscribe is None:
            log.warning("sns_unsubscribed", hint="its events come no more; if that is wrong, subscribe again")
            return True
        fault = await self.server.confirm(message.subscribe)
        if fault is None:
            log.info("sns_subscribed")
        else:
            log.warning("sns_unconfirmed", reason=fault)
        return fault is None


_FROM_BASE64URL = str.maketrans("-_", "+/")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderSecret:
    """The proof is a header whose whole value is one of the secrets `values`."""

    header: str
    values: tuple[bytes, ...] = field(repr=False)

    def is_valid(self, headers: MultiMapping[str]) -> bool:
        """Return whether the header occurs once with one of the values, compared in constant time."""
        header = _find_single_header(headers, self.header)
        matches = [hmac.compare_digest(value, header or b"") for value in self.values]  # all, in constant time
        return header is not None and any(matches)


@dataclass(frozen=True, slots=True, kw_only=True)
class BodySignature:
    """The proof is a header with `prefix` and the HMAC (RFC 2104) of the body, in hexadecimal or base64."""

    header: str
    algorithm: Literal["sha1", "sha256", "sha512"]
    prefix: str
    secrets: tuple[bytes, ...] = field(repr=False)

    def is_valid(self, headers: MultiMapping[str], body: bytes) -> bool:
        """Return whether the header occurs once and signs the body with one of the secrets."""
        header = _find_single_header(headers, self.header)
        if header is None or header[: len(self.prefix)].lower() != self.prefix.lower().encode():
            return False
        signature = header[len(self.prefix) :].decode("ascii", "replace").strip()
        matches = [self._is_signature(signature, secret, body) for secret in self.secrets]  # all, in constant time
        return any(matches)

    def _is_signature(self, signature: str, secret: bytes, body: bytes) -> bool:
        digest = hmac.new(secret, body, getattr(hashlib, self.algorithm)).digest()
        is_hex_match = hmac.compare_digest(digest.hex().encode(), signature.lower().encode())
        expected = base64.b64encode(digest).rstrip(b"=")
        actual = signature.translate(_FROM_BASE64URL).rstrip("=").encode()
        return hmac.compare_digest(expected, actual) or is_hex_match


Proof = HeaderSecret | BodySignature | SetVerifier | SnsVerifier
"""The proof of the sender: a header, or the body itself, which is a Security Event Token or a message of SNS."""


def _find_single_header(headers: MultiMapping[str], name: str) -> bytes | None:
    """Return the raw value of a header that occurs exactly once."""
    values = headers.getall(name, [])
    return values[0].strip().encode("utf-8", "surrogateescape") if len(values) == 1 else None
