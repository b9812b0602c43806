"""Defines `Settings`, the type of the configuration file, with defaults and checks of combinations of settings."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from notifier.model.client import Client, EgressPolicy, RetryPolicy, Route
from notifier.model.defaults import MAX_IN_FLIGHT, SLOT_WAIT
from notifier.model.durations import format_duration
from notifier.model.shared_resources import shared_cache
from notifier.settings.choices import at_most_one
from notifier.settings.clients import ClientMetadata
from notifier.settings.file_owners import check_own_folder
from notifier.settings.file_paths import ExistingFile, resolve_from_base
from notifier.settings.key_settings import KeySettings, SigningSettings
from notifier.settings.policies import (
    EgressSettings,
    ListenerTls,
    RetrySettings,
    TlsSettings,
    TokenKeeperSettings,
    WebListenerSettings,
    find_hold_error,
)
from notifier.settings.queue_settings import QueueSettings
from notifier.settings.registry_settings import RegistrySettings
from notifier.settings.secret_text import SecretPath, SecretText
from notifier.settings.values import (
    MAX_HOLD_SECONDS,
    Count,
    Duration,
    DurationField,
    FeatureSection,
    HoldDuration,
    IssuerId,
    Listen,
    ListenAddress,
    Name,
    PositiveDuration,
    PublicAddress,
    Section,
)

FeatureSectionT = TypeVar("FeatureSectionT", bound=Section)

_UNREGISTERED = Client(iss="", client_id="", backchannel_logout_uri=None, registered=False)


class OpsSettings(Section):
    """The listener of `/livez`, `/readyz` and `/metrics`. It shows no secrets."""

    listen: ListenAddress = Listen("127.0.0.1", 9464)
    """Address and port."""


class ApiSettings(Section):
    """The listener that takes events over HTTP and serves operators."""

    listen: ListenAddress = Listen("127.0.0.1", 8080)
    """Address and port."""
    tokens_file: ExistingFile | None = None
    """Who may use it. Required unless `listen` is a loopback address."""
    tls: ListenerTls | None = None
    """Serve https."""
    console: TokenKeeperSettings = TokenKeeperSettings()
    """The pages for operators."""

    @model_validator(mode="after")
    def _check_tokens(self) -> Self:
        if self.tokens_file is None and not self.console.knows_tokens and not self.listen.loopback:
            raise ValueError(
                f"tokens_file is required, since other machines can reach {self.listen}; or listen on 127.0.0.1"
            )
        return self


class IssuerSettings(Section):
    """An OpenID Provider in whose name tokens are signed."""

    keys: tuple[KeySettings, ...] = Field(min_length=1)
    """Of the keys that are due and fit, the latest signs."""
    jwks_uri: PublicAddress | None = None
    """Where the issuer publishes its keys. Workers watch that our key is there."""
    tls: TlsSettings | None = None
    """TLS when `jwks_uri` is read."""
    publishers: frozenset[Name] | None = None
    """Who may publish its events. Left out: anyone who may publish."""
    event_types: frozenset[str] | None = None
    """The CloudEvents types that end sessions. Left out: any."""


class DeliverySettings(Section):
    """How clients are notified. A client's registration may override it."""

    gone: ClassVar[Mapping[str, str]] = {"slot_wait": f"is gone: it is {format_duration(SLOT_WAIT)} now"}

    timeout: HoldDuration = _UNREGISTERED.timeout
    """Time for an attempt, from the name look-up to the last byte of the answer."""
    max_in_flight: Count = MAX_IN_FLIGHT
    """Attempts that may run at a time in one worker."""
    max_age: PositiveDuration = _UNREGISTERED.retry.max_age
    """How long a delivery lives, attempted or not."""
    sub_only_max_age: Duration = _UNREGISTERED.retry.sub_only_max_age
    """The same for a token without sid, which could end a newer session."""
    max_paused: Duration = _UNREGISTERED.retry.max_paused
    """How much of the time that notifier defers a delivery does not count as age."""
    retry: RetrySettings = RetrySettings()
    """The waits between attempts."""

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        mistake = find_hold_error(self.timeout)
        if mistake is not None:
            raise ValueError(mistake)
        if self.retry.base > self.retry.max_delay:
            raise ValueError("retry.base must not be longer than retry.max_delay")
        return self


class LogSettings(Section):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The lowest level that is logged."""
    format: Literal["auto", "json", "console"] = "auto"
    """`auto`: console on a terminal, JSON elsewhere."""
    subject: Literal["hash", "omit", "raw"] = "hash"
    """sub and sid as a keyed hash, left out, or as they are."""
    subject_key: SecretText | None = None
    """The key of that hash, for all workers. Left out: made beside the embedded queue, else each worker makes one."""
    subject_key_file: SecretPath | None = None
    """A file with that key."""

    _check_one_key = at_most_one("subject_key", "subject_key_file")


class MetricsSettings(Section):
    """What is measured."""

    max_clients: int = Field(500, ge=0)
    """Clients with series of their own. All others share `_other`."""


class SpoolSettings(Section):
    """Files for the sign-outs of senders that do not retry, while the queue takes none."""

    folder: Annotated[
        Path, AfterValidator(resolve_from_base), AfterValidator(partial(check_own_folder, content="events"))
    ]
    """A folder that only the workers' user may write to. It is made if it is missing."""


def _parse_off(value: object) -> object:
    return "off" if value is False else value  # a bare off is false in YAML


SourceName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]


class Settings(Section):
    """notifier's configuration."""

    gone: ClassVar[Mapping[str, str]] = {
        "tracing": "is gone: the variable OTEL_EXPORTER_OTLP_ENDPOINT names the collector, OTEL_TRACES_SAMPLER how many"
        " events are traced"
    }
    client_metadata: ClassVar[type[ClientMetadata]] = ClientMetadata  # with the members that features declare

    queue: QueueSettings = QueueSettings()
    """Where events come from."""
    ops: OpsSettings = OpsSettings()
    """Health and metrics."""
    api: ApiSettings | None = None
    """The API. Left out: no listener."""
    issuers: dict[IssuerId, IssuerSettings] = Field({})
    """By issuer identifier, as in `iss`."""
    signing: SigningSettings = SigningSettings()
    """How keys that are not files are asked."""
    delivery: DeliverySettings = DeliverySettings()
    """How clients are notified."""
    egress: EgressSettings = EgressSettings()
    """Where requests may go."""
    registry: RegistrySettings = RegistrySettings()
    """The clients."""
    sources: dict[SourceName, FeatureSection] = Field({})
    """Servers that publish events in their own format, by name."""
    web: WebListenerSettings | None = None
    """Pages for browsers. Left out: no listener."""
    upstreams: dict[SourceName, FeatureSection] = Field({})
    """OpenID Providers that users sign in at and that report ended sessions, by name."""
    relays: dict[SourceName, FeatureSection] = Field({})
    """Identity servers of `issuers` whose logout tokens notifier delivers to their clients, by name."""
    spool: SpoolSettings | None = None
    """Files for sign-outs while the queue takes none. Left out: their senders get 503."""
    log: LogSettings = LogSettings()
    """Logs."""
    metrics: MetricsSettings = MetricsSettings()
    """Metrics."""
    outcomes: Annotated[
        Literal["off", "failures", "all"],
        BeforeValidator(_parse_off, json_schema_input_type=Literal["off", "failures", "all", False]),
    ] = "off"
    """The feed for audit systems. `failures`: only failed deliveries."""
    shutdown_grace: Annotated[float, DurationField(most=MAX_HOLD_SECONDS)] = 20.0
    """Time to finish what is in flight."""

    @model_validator(mode="after")
    def _check_listeners(self) -> Self:
        listening = {"ops": self.ops.listen}
        listening |= {
            name: listener.listen for name, listener in (("api", self.api), ("web", self.web)) if listener is not None
        }
        for listener, other in combinations(listening, 2):
            if listening[listener] == listening[other] and listening[listener].port != 0:
                raise ValueError(
                    f"{listener}.listen and {other}.listen are both {listening[listener]}; each needs its own port"
                )
        return self

    def section(self, path: str, kind: type[FeatureSectionT]) -> FeatureSectionT | None:
        """Return the section of a feature; None if it is left out. `kind`: the type declared by the feature."""
        section: object = self
        for name in path.split("."):
            section = getattr(section, name, None)
        assert section is None or isinstance(section, kind), f"{path} was read without the sections of features"
        return section

    def sections(self, path: str, kind: type[FeatureSectionT]) -> Mapping[str, FeatureSectionT]:
        """Return the named sections of a feature."""
        sections: Mapping[str, Section] = getattr(self, path)
        found = {name: section for name, section in sections.items() if isinstance(section, kind)}
        assert len(found) == len(sections), f"{path} was read without the sections of features"
        return found

    def template(self) -> Client:
        """Return an unregistered client: the defaults of each registration."""
        delivery = self.delivery
        retry = RetryPolicy(
            **dict(delivery.retry),
            max_age=delivery.max_age,
            sub_only_max_age=delivery.sub_only_max_age,
            max_paused=delivery.max_paused,
        )
        return replace(
            _UNREGISTERED,
            timeout=delivery.timeout,
            retry=retry,
            route=Route(egress=_policy(**dict(self.egress))),
        )


@shared_cache(64)
def _policy(**members: Any) -> EgressPolicy:
    """Return one object for equal settings, also across reloads, so that lookups by it compare no networks."""
    return EgressPolicy(**members)
