"""JSON Schemas of what the channels send. No object may have another member than the ones listed.

From OpenID Provider Commands draft 02, RFC 8417, RFC 9493, CAEP 1.0, SSF 1.0 and
draft-parecki-oauth-global-token-revocation-05.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from jsonschema import Draft202012Validator

from tests.features.channels.receivers.fake_event_receiver import SESSION_REVOKED, VERIFICATION

Schema = dict[str, Any]
TEXT: Schema = {"type": "string", "minLength": 1}
SECONDS: Schema = {"type": "integer", "minimum": 1}


def _object(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    properties = {**required, **(optional or {})}
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _header(typ: str) -> Schema:
    return _object({"alg": {"enum": ["RS256", "PS256", "ES256", "EdDSA"]}, "kid": TEXT, "typ": {"const": typ}})


_COMMAND: Mapping[str, Schema] = {
    "iss": TEXT, "aud": TEXT, "client_id": TEXT, "iat": SECONDS, "exp": SECONDS, "jti": TEXT, "tenant": TEXT,
}  # fmt: skip
_IDENTIFIER: Schema = {
    "oneOf": [
        _object({"format": {"const": "iss_sub"}, "iss": TEXT, "sub": TEXT}),
        _object({"format": {"const": "email"}, "email": TEXT}),
        _object({"format": {"const": "opaque"}, "id": TEXT}),
    ]
}
_OTHER_IDENTIFIER: Schema = {  # spelled out in a file, for receivers that differ from RFC 9493
    "type": "object", "required": ["format"], "minProperties": 2, "additionalProperties": TEXT,
}  # fmt: skip


def _subject(user: Schema) -> Schema:
    return {"anyOf": [user, _object({"format": {"const": "complex"}, "user": user, "session": _IDENTIFIER})]}


_SUBJECT = _subject(_IDENTIFIER)
_EVENT = _object({"event_timestamp": SECONDS}, {
    "subject": _SUBJECT, "reason_admin": {"type": "object", "additionalProperties": TEXT},
    "initiating_entity": {"enum": ["admin", "user", "policy", "system"]},
})  # fmt: skip
_SET: Mapping[str, Schema] = {
    "iss": TEXT,
    "aud": {"anyOf": [TEXT, {"type": "array", "items": TEXT, "minItems": 1}]},
    "iat": SECONDS,
    "jti": TEXT,
}

SCHEMAS: Mapping[str, tuple[Schema, Schema]] = MappingProxyType(
    {
        "command": (_header("command+jwt"), _object({**_COMMAND, "command": {"const": "invalidate"}, "sub": TEXT})),
        "metadata_command": (
            _header("command+jwt"),
            _object({**_COMMAND, "command": {"const": "metadata"}, "metadata": _object({})}),
        ),
        "security_event": (
            _header("secevent+jwt"),
            _object({**_SET, "sub_id": _SUBJECT, "events": _object({SESSION_REVOKED: _EVENT})}, {"txn": TEXT}),
        ),
        "other_security_event": (
            _header("secevent+jwt"),
            _object(
                {**_SET, "sub_id": _subject(_OTHER_IDENTIFIER), "events": _object({SESSION_REVOKED: _EVENT})},
                {"txn": TEXT},
            ),
        ),
        "verification_event": (
            _header("secevent+jwt"),
            _object(
                {
                    **_SET,
                    "sub_id": _object({"format": {"const": "opaque"}, "id": TEXT}),
                    "events": _object({VERIFICATION: _object({}, {"state": TEXT})}),
                },
                {"txn": TEXT},
            ),
        ),
        "revocation_proof": (
            _header("global-token-revocation+jwt"),
            _object(
                {"iss": TEXT, "sub": TEXT, "aud": TEXT, "iat": SECONDS, "exp": SECONDS, "jti": TEXT}, {"nbf": SECONDS}
            ),
        ),
        "revocation_body": ({}, _object({"sub_id": _IDENTIFIER})),
        "other_revocation_body": (
            {}, {"oneOf": [_object({"sub_id": _OTHER_IDENTIFIER}), _object({"subject": _OTHER_IDENTIFIER})]},
        ),
    }
)  # fmt: skip
"""By kind: the schema of the JOSE header ({}: there is none), and of the claims or the body."""


def validate(kind: str, header: Mapping[str, Any] | None, claims: Mapping[str, Any]) -> None:
    """Raise AssertionError with all differences from the schemas of this kind. `header` None: the body of a request."""
    of_header, of_claims = SCHEMAS[kind]
    found = list(_differences(of_claims, claims))
    if header is not None:
        found += _differences(of_header, header)
    assert not found, "; ".join(found)
    if "exp" in claims:
        assert 0 < claims["exp"] - claims["iat"] <= 300, "exp is at most 300 s after iat"


def _differences(schema: Schema, content: Mapping[str, Any]) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(dict(content))]
