"""What may be set for all clients and again for one (retries, circuit, egress), and how the one overrides the other."""

from dataclasses import replace
from typing import Annotated, Self, TypeVar

from pydantic import Field, model_validator

from notifier.domain.client import CircuitPolicy, EgressPolicy, RetryPolicy, TlsFiles
from notifier.domain.durations import format_duration
from notifier.settings.values import LONGEST_HOLD, Count, ExistingFile, Lasting, Network, Section, Span


class TlsSettings(Section):
    """PEM files of one side of a TLS connection."""

    ca_file: ExistingFile | None = Field(None, description="Authorities to trust instead of the system's.")
    cert_file: ExistingFile | None = Field(None, description="Our certificate, with its chain.")
    key_file: ExistingFile | None = Field(None, description="The private key of `cert_file`.")

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file needs cert_file beside it")
        return self

    def files(self) -> TlsFiles:
        """As the domain knows them."""
        return TlsFiles(ca_file=self.ca_file, cert_file=self.cert_file, key_file=self.key_file)


class RetrySettings(Section):
    """`base · factor^n`, capped at `max_delay`, give or take `jitter`."""

    base: Span = Field(2.0, description="The first wait.")
    factor: float = Field(3.0, ge=1, le=100, description="What each further wait is multiplied by.")
    max_delay: Span = Field(3600.0, description="The longest wait.")
    jitter: float = Field(
        0.25, ge=0, lt=1, description="The share by which a wait is shortened or lengthened at random."
    )


class CircuitSettings(Section):
    """When a client counts as down, and for how long it is left alone."""

    failures: Count = Field(10, description="Failures in a row.")
    failure_rate: float = Field(0.5, gt=0, le=1, description="Or this share of the attempts within `window`.")
    window: Span = Field(30.0, description="What `failure_rate` looks back at.")
    open_for: Annotated[float, Lasting(above=0.0, most=900.0)] = Field(30.0, description="Doubles up to 15 m.")


class EgressSettings(Section):
    """Where requests may go: https and public addresses, unless said otherwise here."""

    allow: tuple[Network, ...] = Field((), description="Networks to allow although they are not public.")
    deny: tuple[Network, ...] = Field((), description="Networks to deny although they are public.")
    allow_http: bool = Field(default=False, description="Allow plain http.")


_Policy = TypeVar("_Policy", RetryPolicy, CircuitPolicy, EgressPolicy)


def overridden(policy: _Policy, section: Section | None) -> _Policy:
    """The policy with whatever the section sets itself, member by member."""
    if section is None or not section.model_fields_set:
        return policy
    return replace(policy, **{name: getattr(section, name) for name in section.model_fields_set})


def hold_mistake(timeout: float, slot_wait: float) -> str | None:
    """Why these two cannot work together, if so: a message held too long is taken back by the broker in flight."""
    if timeout + slot_wait < LONGEST_HOLD:
        return None
    return (
        f"timeout and slot_wait together are {format_duration(timeout + slot_wait)}; they must be less than"
        f" {format_duration(LONGEST_HOLD)}, since the broker takes back a message that is held too long"
    )
