"""Defines settings that exist for the service and for a single client, such as retries, and settings of TLS."""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Self, TypeVar

from pydantic import model_validator

from notifier.model.client import EgressPolicy, RetryPolicy, TlsFiles
from notifier.model.defaults import SLOT_WAIT
from notifier.model.durations import format_duration
from notifier.settings.file_paths import ExistingFile
from notifier.settings.values import (
    MAX_HOLD_SECONDS,
    FeatureSection,
    Listen,
    ListenAddress,
    Network,
    PositiveDuration,
    Section,
)


class TlsSettings(Section):
    """PEM files for the TLS connections that we open."""

    ca_file: ExistingFile | None = None
    """Authorities to trust instead of the system's."""
    cert_file: ExistingFile | None = None
    """Our certificate, with its chain."""
    key_file: ExistingFile | None = None
    """The private key of `cert_file`."""

    @model_validator(mode="after")
    def _check_pair(self) -> Self:
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file needs cert_file beside it")
        return self

    def files(self) -> TlsFiles:
        """Return the files as the type of the model."""
        return TlsFiles(ca_file=self.ca_file, cert_file=self.cert_file, key_file=self.key_file)


class ListenerTls(Section):
    """Certificate and key of a listener."""

    cert_file: ExistingFile
    """Its certificate, with its chain (PEM)."""
    key_file: ExistingFile
    """The private key of `cert_file` (PEM)."""
    client_ca_file: ExistingFile | None = None
    """Authorities (PEM). Each caller must show a certificate of one of them, besides its token."""


class TokenKeeperSettings(FeatureSection):
    """A section of the API whose feature may accept tokens besides the tokens file."""

    @property
    def knows_tokens(self) -> bool:
        """True if its feature has tokens, so that the API requires a token even without a tokens file."""
        return bool(self.model_extra)


class WebListenerSettings(FeatureSection):
    """The listener that browsers and others' servers call. What it serves, features say."""

    listen: ListenAddress = Listen("127.0.0.1", 8090)
    """Address and port."""
    tls: ListenerTls | None = None
    """Serve https to the proxy."""

    def url_of(self, _iss: str) -> str | None:
        """Return the URL of the issuer's pages; None if it has none."""
        return None


_RETRY = RetryPolicy()


class RetrySettings(Section):
    """The waits between attempts, each about three times as long as the one before."""

    gone: ClassVar[Mapping[str, str]] = {
        "factor": f"is gone: it is {_RETRY.factor:g} now; for equal waits make max_delay as long as base",
        "jitter": f"is gone: it is {_RETRY.jitter:g} now",
    }

    base: PositiveDuration = _RETRY.base
    """The first wait."""
    max_delay: PositiveDuration = _RETRY.max_delay
    """The longest wait."""


class EgressSettings(Section):
    """The egress policy. By default requests go to public addresses over https only."""

    allow: tuple[Network, ...] = ()
    """Networks to allow although they are not public."""
    deny: tuple[Network, ...] = ()
    """Networks to deny although they are public."""
    allow_http: bool = False
    """Allow plain http."""


_Policy = TypeVar("_Policy", RetryPolicy, EgressPolicy)


def override_policy(policy: _Policy, section: Section | None) -> _Policy:
    """Return the policy with the members that the section sets."""
    if section is None or not section.model_fields_set:
        return policy
    return replace(policy, **{name: getattr(section, name) for name in section.model_fields_set})


def find_hold_error(timeout: float) -> str | None:
    """Return why the timeout of an attempt is too long; None if it is not.

    A message is held unacked during the attempt, and the broker requeues messages that are held too long.
    """
    limit = MAX_HOLD_SECONDS - SLOT_WAIT
    if timeout < limit:
        return None
    return (
        f"timeout is {format_duration(timeout)}; it must be less than {format_duration(limit)}, since the broker takes"
        " back a message that is held longer"
    )
