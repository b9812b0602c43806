"""Parse and check a message of Amazon SNS. Its signature is verified afterwards (`source_proofs.SnsVerifier`).

SNS signs the text of some members: each name and each value on a line. Only the first value, `Message`, may contain a
line break. Otherwise anyone who can publish to the topic could write a value that reads as further members. Unsigned
members (`MessageAttributes`, `UnsubscribeURL`) are dropped.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

_NOTIFICATION_MEMBERS = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_CONFIRMATION_MEMBERS = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
_REQUIRED_MEMBERS = ("MessageId", "Message", "Timestamp", "TopicArn")
_HASHES: Mapping[str, Literal["sha1", "sha256"]] = {"1": "sha1", "2": "sha256"}
_CERTIFICATE_NAME = re.compile(r"SimpleNotificationService-[0-9A-Za-z]{1,64}\.pem")
_NOT_SNS = "the body is not an SNS message; if the topic sent it, disable raw message delivery"
_MAX_MEMBER_CHARACTERS = 4096  # of each member except `Message`

SnsKind = Literal["Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation"]


@dataclass(frozen=True, slots=True)
class SnsTopic:
    """A topic. Certificates and confirmations of its messages must be on the SNS server of its region."""

    arn: str

    @property
    def server(self) -> str:
        """Return the URL of the region's SNS server, without a slash at the end."""
        _, partition, _, region, *_ = self.arn.split(":")  # the settings ensure this form
        return f"https://sns.{region}.amazonaws.com{'.cn' if partition == 'aws-cn' else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SnsMessage:
    """A message. It is authentic if the certificate at the URL `certificate` verifies the `signature` of `text`.

    `signed`: the signed members as JSON. `subscribe`: the URL that confirms a subscription.
    """

    kind: SnsKind
    certificate: str
    algorithm: Literal["sha1", "sha256"]
    signature: bytes = field(repr=False)
    text: bytes = field(repr=False)
    signed: bytes = field(repr=False)
    subscribe: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnsRefusal:
    """Why a message is refused. `text` is safe to show to unauthenticated clients."""

    text: str


class _SnsDocument(TypedDict, total=False):
    """The members that are read. Others are ignored."""

    Type: str
    MessageId: str
    TopicArn: str
    Subject: str | None
    Message: str
    Timestamp: str
    Token: str
    SubscribeURL: str
    SignatureVersion: str
    Signature: str
    SigningCertURL: str


_DOCUMENT = TypeAdapter(_SnsDocument)


def read_sns(body: bytes, topic: SnsTopic) -> SnsMessage | SnsRefusal:
    """Return a message of the topic, whose signature is not verified yet, or why it is refused. Never raises."""
    try:
        document = _DOCUMENT.validate_json(body, strict=True)
    except ValidationError:
        return SnsRefusal(text=_NOT_SNS)
    posted: dict[str, str] = {name: value for name, value in document.items() if isinstance(value, str)}
    kind = _to_kind(posted.get("Type"))
    if kind is None:
        return SnsRefusal(text=_NOT_SNS)
    error = _find_signed_error(kind, posted, topic) or _find_signature_error(posted, topic)
    if error is not None:
        return SnsRefusal(text=error)
    try:
        signature = base64.b64decode(posted.get("Signature", ""), validate=True)
    except (binascii.Error, ValueError):
        return SnsRefusal(text="Signature is not base64")
    names = _NOTIFICATION_MEMBERS if kind == "Notification" else _CONFIRMATION_MEMBERS
    signed = {name: posted[name] for name in names if name in posted}
    return SnsMessage(
        kind=kind,
        certificate=posted["SigningCertURL"],
        algorithm=_HASHES[posted["SignatureVersion"]],
        signature=signature,
        text="".join(f"{name}\n{value}\n" for name, value in signed.items()).encode(),
        signed=to_json(signed),
        subscribe=signed.get("SubscribeURL"),
    )


def _find_signed_error(kind: SnsKind, posted: Mapping[str, str], topic: SnsTopic) -> str | None:
    """Return the error in the signed members, or in the form of any member; None if there is none."""
    required = _REQUIRED_MEMBERS if kind == "Notification" else (*_REQUIRED_MEMBERS, "Token", "SubscribeURL")
    for name in required:
        if name not in posted:
            return f"{name} is missing"
    for name, value in posted.items():
        if name != "Message" and ("\n" in value or len(value) > _MAX_MEMBER_CHARACTERS):
            return f"{name} has a line break, or more than {_MAX_MEMBER_CHARACTERS} characters"
    if posted["TopicArn"] != topic.arn:
        return "TopicArn is another topic"
    confirmation_url = f"{topic.server}/?Action=ConfirmSubscription&"
    if kind != "Notification" and not posted["SubscribeURL"].startswith(confirmation_url):
        return "SubscribeURL confirms nothing at the server of the topic's region"
    return None


def _find_signature_error(posted: Mapping[str, str], topic: SnsTopic) -> str | None:
    """Return the error in the members about the signature; None if there is none. No certificate is fetched."""
    if "SigningCertURL" not in posted:
        return "SigningCertURL is missing"
    if posted.get("SignatureVersion") not in _HASHES:
        return "SignatureVersion is neither 1 nor 2"
    server, _, path = posted["SigningCertURL"].rpartition("/")
    if server != topic.server or _CERTIFICATE_NAME.fullmatch(path) is None:
        return "SigningCertURL is not a certificate on the server of the topic's region"
    return None


def _to_kind(name: str | None) -> SnsKind | None:
    match name:
        case "Notification" | "SubscriptionConfirmation" | "UnsubscribeConfirmation":
            return name
        case _:
            return None
