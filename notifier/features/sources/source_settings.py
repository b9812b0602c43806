"""Settings of sources: servers that publish events in their own formats."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Protocol, Self

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from notifier.model.errors import InputIssue
from notifier.model.message import Binding
from notifier.settings.choices import exactly_one
from notifier.settings.policies import TlsSettings
from notifier.settings.secret_text import SecretPath
from notifier.settings.service_settings import Settings
from notifier.settings.values import IssuerId, Name, PublicAddress, Section, TextList

_BROKER_PREFIX = "amq."
_TOPIC = r"^arn:(aws|aws-cn|aws-us-gov):sns:[a-z]{2}(-[a-z]+)+-[0-9]{1,2}:[0-9]{12}:[A-Za-z0-9_-]{1,256}$"


def _check_length(text: str) -> str:
    if len(text.encode()) > 255:
        raise ValueError("is longer than 255 bytes, which is the most that AMQP takes")
    return text


AmqpText = Annotated[str, AfterValidator(_check_length)]


class BindSettings(Section):
    """An exchange of another application. The source's queue is bound to it."""

    exchange: AmqpText = Field(min_length=1, max_length=255)
    """Its name."""
    routing_key: AmqpText = Field("#", max_length=255)
    """The routing key, or a pattern if it is a topic exchange."""


_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110 §5.1


def _check_header_name(value: str) -> str:
    if not re.fullmatch(_NAME, value):
        raise ValueError("must be the name of a header, such as Authorization, without a colon")
    return value


ProofHeader = Annotated[
    str, AfterValidator(_check_header_name), WithJsonSchema({"type": "string", "pattern": f"^{_NAME}$"})
]


class BindingOwner(Protocol):
    """A source with bindings."""

    @property
    def bind(self) -> tuple[BindSettings, ...]:
        """Return the exchanges to which the source's queue is bound."""


def bindings_of(sources: Mapping[str, BindingOwner]) -> tuple[Binding, ...]:
    """Return the bindings of all sources, without duplicates."""
    bindings = (
        Binding(source=name, exchange=bind.exchange, routing_key=bind.routing_key)
        for name, source in sources.items()
        for bind in source.bind
    )
    return tuple(dict.fromkeys(bindings))


def warn_open_exchanges(sources: Mapping[str, BindingOwner]) -> list[InputIssue]:
    """Return a warning for each binding to a predefined exchange of the broker."""
    return [
        InputIssue(
            f"sources.{name}.bind[{index}]",
            f"every user of the broker with write permission for {bind.exchange}, a predefined exchange, can sign users"
            " out: restrict that permission, or have the server publish to a dedicated exchange",
        )
        for name, source in sources.items()
        for index, bind in enumerate(source.bind)
        if bind.exchange.startswith(_BROKER_PREFIX)
    ]


class HmacSettings(Section):
    """A signature of the body in a header."""

    header: ProofHeader
    """The header with the signature, in hexadecimal or base64."""
    secret_file: SecretPath
    """A file with the secret, and a second one on its own line while it is replaced."""
    algorithm: Literal["sha1", "sha256", "sha512"] = "sha256"
    """The hash."""
    prefix: str = ""
    """The prefix of the signature, such as `sha256=`."""


class SetSettings(Section):
    """A Security Event Token (RFC 8417) as the body. It is verified by the keys that its issuer publishes."""

    issuer: IssuerId
    """The `iss` that it must have."""
    jwks_uri: PublicAddress
    """Where the issuer publishes its keys."""
    audience: Name = Field(min_length=1)
    """The `aud` that it must have."""
    tls: TlsSettings | None = None
    """TLS when `jwks_uri` is read."""


class SnsSettings(Section):
    """A message of a topic of Amazon SNS as the body. It is verified by a certificate of SNS in the topic's region."""

    topic_arn: Annotated[str, Field(pattern=_TOPIC)]
    """The topic, such as `arn:aws:sns:eu-west-1:123456789012:logouts`."""


class WebsubSettings(Section):
    """The subscription at a WebSub hub whose verification requests are confirmed."""

    topic: str = Field(min_length=1, max_length=2048)
    """The `hub.topic` of the subscription."""
    unsubscribe: Literal["refuse", "allow"] = "refuse"
    """Whether a request that verifies the end of the subscription is confirmed. It comes without a proof."""


class SourceHttpSettings(Section):
    """How a caller of `POST /v1/events/NAME` proves who it is. One of the four."""

    header: ProofHeader | None = None
    """The header with the secret of `value_file`."""
    value_file: SecretPath | None = None
    """A file with the whole value of `header`, and a second value on its own line while it is replaced."""
    hmac: HmacSettings | None = None
    """The body is signed with a secret."""
    set: SetSettings | None = None
    """The body is a Security Event Token."""
    sns: SnsSettings | None = None
    """The body is a message of Amazon SNS."""
    websub: WebsubSettings | None = None
    """Confirm the verification requests of a WebSub hub for this subscription.

    Preset `wso2` without it: each new subscription is confirmed, and no unsubscription."""

    @property
    def signed(self) -> bool:
        """Return whether the proof covers the body. No proof covers the other headers."""
        return self.header is None

    @model_validator(mode="after")
    def _check_header(self) -> Self:
        if (self.header is None) != (self.value_file is None):
            raise ValueError("header and value_file belong together; give both or none")
        return self

    _check_proof = exactly_one("header", "hmac", "set", "sns")


class SourceSettings(Section):
    """A server that publishes events in its own format."""

    preset: str | None = None
    """A known server, by name. What is given here replaces its members."""
    issuer: IssuerId | None = None
    """The `iss` of its events, if they name none."""
    issuers: dict[str, IssuerId] | None = None
    """What its events name → `iss`."""
    content_type: Literal["json"] | None = None
    """`json`: bodies are JSON, whatever their content type."""
    envelope: TextList | None = None
    """What is around the event, from the outside in: `masstransit`, or an expression that gives a list,
    each member of which is an event (`@` if the document is the list)."""
    ignore_case: bool | None = None
    """Lower all member names, and drop `_`, before anything is read."""
    when: str | None = None
    """An expression. An event for which it is false is ignored."""
    event: dict[str, str] | None = None
    """Member of notifier's event → expression (JMESPath)."""
    bind: tuple[BindSettings, ...] = ()
    """The exchanges that its queue is bound to."""
    http: SourceHttpSettings | None = None
    """Take events at `POST /v1/events/NAME`."""

    @model_validator(mode="after")
    def _check_challenge(self) -> Self:
        if self.preset == "okta_hook" and self.http is not None and self.http.websub is not None:
            raise ValueError("http.websub is for WebSub hubs, and Okta verifies by a header: remove http.websub")
        return self


def sources_of(settings: Settings) -> Mapping[str, SourceSettings]:
    """Return the sources, by name."""
    return settings.sections("sources", SourceSettings)
