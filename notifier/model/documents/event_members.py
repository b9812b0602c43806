"""The members of an event as publishers write them. These types parse the event and generate its JSON Schema.

`null` means that a member is left out, since many serializers write it so. Only `backchannel_logout_uri: null` has a
meaning: the client has no address, so it is skipped unless the registry has one.

The patterns of a URI and a text allow exactly the values that the parser allows. They use no look-around, since some
validators (RE2) do not support it. In some engines, as in Python, `$` matches before a last line break: a `not` beside
the pattern excludes that.
"""

from typing import Annotated, Any, Literal, Required

from pydantic import AfterValidator, ConfigDict, Field, PlainValidator, WithJsonSchema, with_config
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict  # pydantic requires this TypedDict before Python 3.12

from notifier.model.client import Algorithm
from notifier.model.documents.cloudevents import MAX_ID_BYTES, MAX_TEXT_LENGTH
from notifier.model.egress import MAX_URI_LENGTH, find_uri_issue
from notifier.model.moment import RFC_3339, parse_moment
from notifier.model.printable import excerpt
from notifier.model.validation import kind_of

CONTROLS = r"[\x00-\x1f\x7f-\x9f]"

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = rf"{_LABEL}(?:\.{_LABEL})*\.?"
_NUMBER = r"(?:[0-9]+|0[xX][0-9A-Fa-f]*)"
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"(?:{_OCTET}\.){{3}}{_OCTET}"
_PORT = (
    r"(?::(?:0{0,4}[1-9]|0{0,3}[1-9][0-9]|0{0,2}[1-9][0-9]{2}|0?[1-9][0-9]{3}|[1-5][0-9]{4}|6[0-4][0-9]{3}"
    r"|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
)
_START, _END = r"^[Hh][Tt][Tt][Pp][Ss]?://", r"(?:[/?]|$)"
_NO_CONTROL = r"^[^\x00-\x1f\x7f-\x9f]*$"  # ids travel in headers and logs


def uri_schema(max_length: int) -> dict[str, Any]:
    """Return the schema of an absolute http or https URI: visible ASCII, no user name, no fragment (B3, B5)."""
    return {
        "type": "string",
        "format": "uri",
        "minLength": 1,
        "maxLength": max_length,
        "not": {"pattern": r"[^!-\[\]-~]|#"},
        "anyOf": [
            {
                "description": "With a host name of at most 253 characters that does not end in a number.",
                "pattern": f"{_START}{_NAME}{_PORT}{_END}",
                "allOf": [{"pattern": rf"{_START}[^/?:]{{1,253}}\.?(?:[:/?]|$)"}],
                "not": {"pattern": rf"{_START}(?:[^/?:]*\.)?{_NUMBER}\.?(?:[:/?]|$)"},
            },
            {"description": "With an IPv4 address.", "pattern": f"{_START}{_IPV4}{_PORT}{_END}"},
            {"description": "With an IPv6 address.", "pattern": rf"{_START}\[{_ipv6_pattern()}\]{_PORT}{_END}"},
        ],
    }


def _ipv6_pattern() -> str:
    """Return the pattern of RFC 3986 §3.2.2: eight groups; the last two may be IPv4, and one `::` replaces zeros."""
    group = "[0-9A-Fa-f]{1,4}"
    last = f"(?:{group}:{group}|{_IPV4})"
    forms = [f"(?:{group}:){{6}}{last}", f"::(?:{group}:){{5}}{last}"]
    forms += [rf"(?:(?:{group}:){{0,{n}}}{group})?::(?:{group}:){{{4 - n}}}{last}" for n in range(5)]
    forms += [f"(?:(?:{group}:){{0,5}}{group})?::{group}", f"(?:(?:{group}:){{0,6}}{group})?::"]
    return f"(?:{'|'.join(forms)})"


def _validate_moment(value: object) -> float:
    if isinstance(value, str):
        try:
            return parse_moment(value)
        except ValueError:
            pass
    raise _to_validation_error("must be an RFC 3339 timestamp with an offset, like 2026-01-31T12:00:00Z")


def _validate_algorithm(value: object) -> Algorithm:
    if not isinstance(value, str):
        raise _to_validation_error(f"must be a string, not {kind_of(value)}")
    try:
        return Algorithm(value)
    except ValueError:
        raise _to_validation_error(
            f'"{excerpt(value)}" is not supported; must be one of {", ".join(Algorithm)}'
        ) from None


def _validate_uri(value: str) -> str:
    if (mistake := find_uri_issue(value)) is not None:
        raise _to_validation_error(mistake)
    return value


def _validate_id(value: str) -> str:
    if len(value.encode()) > MAX_ID_BYTES:
        raise _to_validation_error(f"must have at most {MAX_ID_BYTES} bytes in UTF-8")
    return value


def _to_validation_error(text: str) -> PydanticCustomError:
    return PydanticCustomError("wrong", "{text}", {"text": text})


def _text_schema(length: int, *further: dict[str, Any]) -> WithJsonSchema:
    """Return the schema of a text without control characters. It uses `not`: `$` may match before a last line break."""
    wrong = [{"pattern": CONTROLS}, *further]
    allowed = wrong[0] if len(wrong) == 1 else {"anyOf": wrong}
    return WithJsonSchema({"type": "string", "minLength": 1, "maxLength": length, "not": allowed})


Text = Annotated[
    str, Field(min_length=1, max_length=MAX_TEXT_LENGTH, pattern=_NO_CONTROL), _text_schema(MAX_TEXT_LENGTH)
]
ClientId = Annotated[Text, _text_schema(MAX_TEXT_LENGTH, {"const": "*"})]
Id = Annotated[
    str,
    Field(min_length=1, max_length=MAX_ID_BYTES, pattern=_NO_CONTROL),
    AfterValidator(_validate_id),
    _text_schema(MAX_ID_BYTES),
]
Moment = Annotated[
    float,
    PlainValidator(_validate_moment),
    WithJsonSchema({"type": "string", "format": "date-time", "pattern": f"^{RFC_3339}$", "not": {"pattern": CONTROLS}}),
]
Alg = Annotated[
    Algorithm,
    PlainValidator(_validate_algorithm),
    WithJsonSchema({"type": "string", "enum": [str(alg) for alg in Algorithm]}),
]
Uri = Annotated[
    str,
    Field(min_length=1, max_length=MAX_URI_LENGTH),
    AfterValidator(_validate_uri),
    WithJsonSchema(uri_schema(MAX_URI_LENGTH)),
]


@with_config(ConfigDict(strict=True, title="Client"))
class EntryDocument(TypedDict, total=False):
    """A client to notify. Its members override the registry for this event, if `registry.inline` permits it."""

    client_id: Required[Annotated[ClientId, Field(description="The client's `client_id` at this issuer.")]]
    backchannel_logout_uri: Annotated[
        Uri | None,
        Field(
            description="Where to POST the logout token: an absolute URI without user name and fragment. null: it has"
            " none, and is skipped unless the registry knows one."
        ),
    ]
    backchannel_logout_session_required: Annotated[
        bool | None, Field(description="Whether the logout token must carry `sid`.")
    ]
    id_token_signed_response_alg: Annotated[Alg | None, Field(description="How the logout token is signed.")]
    frontchannel_logout_uri: Annotated[
        Uri | None,
        Field(
            description="The URI that the page of `POST /v1/sign-outs` calls for a client that the registry does not"
            " have, if `registry.inline` accepts the address."
        ),
    ]
    frontchannel_logout_session_required: Annotated[
        bool | None, Field(description="Whether that page must send it `iss` and `sid`.")
    ]
    sub: Annotated[Text | None, Field(description="The user, as only this client knows them (pairwise).")]
    sid: Annotated[Text | None, Field(description="The session, as only this client knows it.")]


def _require_one(*names: str) -> list[dict[str, Any]]:
    """Require one of these members, and not as null."""
    return [{"required": [name], "properties": {name: {"type": "string"}}} for name in names]


_OF_EACH = {
    "properties": {"clients": {"type": "array", "items": {"type": "object", "anyOf": _require_one("sub", "sid")}}}
}
_WHOSE: dict[str, Any] = {
    "anyOf": [*_require_one("sub", "sid"), _OF_EACH],  # B12
    "not": {"required": ["specversion"]},  # an envelope with the event in `data`
}


@with_config(ConfigDict(strict=True, title="Session ended", json_schema_extra=_WHOSE))
class EventBody(TypedDict, total=False):
    """One session of a user, or all sessions of a user, ended at one issuer, and these clients must be notified.

    `sub` or `sid` must be given, here or in every entry of `clients`. Unknown members are ignored.
    """

    id: Annotated[
        Id | None,
        Field(
            description="Identifies the event, so that copies are recognised. At most 255 bytes in UTF-8."
            " Default: CloudEvents `id`, AMQP `message_id`."
        ),
    ]
    iss: Required[Annotated[Text, Field(description="The issuer, as configured.")]]
    sub: Annotated[Text | None, Field(description="The user. Without `sid`: all their sessions.")]
    sid: Annotated[Text | None, Field(description="The session.")]
    email: Annotated[
        Text | None,
        Field(
            description="The user's e-mail address, for receivers of other channels that know users by it. It counts if"
            " `registry.inline` accepts addresses of this publisher."
        ),
    ]
    clients: Required[
        Annotated[
            Annotated[list[ClientId | EntryDocument], Field(min_length=1, fail_fast=True)] | Literal["*"],
            Field(description='Clients to notify: `client_id`s or objects; or "*", all registered ones of the issuer.'),
        ]
    ]
    ended_at: Annotated[
        Moment | None, Field(description="When it ended. Default: CloudEvents `time`, the message's timestamp.")
    ]
    not_after: Annotated[
        Moment | None,
        Field(description="When the sessions at the clients expire by themselves. No attempt is made after it."),
    ]
    reason: Annotated[
        Text | None, Field(description="`user_logout`, `session_expiration`, `terminated`, or any other word.")
    ]
