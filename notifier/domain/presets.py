"""The settings that widely deployed receivers need, by name (docs/specification.md lists the receivers).

A preset is a partial profile, and the client's own settings override it. Most receivers need only the defaults, which
suit them (R1–R12). Naming a preset still documents in the registry which receiver it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from notifier.domain.client import SubjectMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """What a receiver needs. None means the default. `why` and `answers` are for people; `answers` explains the answers
    that are not success.
    """

    why: str
    answers: str = ""
    typ: str | None = None
    subject: SubjectMode | None = None


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "mod_auth_openidc": Preset(
            why="refuses a repeated jti, and every attempt has a fresh one anyway",
            answers="it answers 400 for every failure, and its error log says which: the algorithm if one is pinned, "
            "an iat more than 600 s off, a key that it does not find, a session that it does not know",
        ),
        "express_openid_connect": Preset(
            why="its hooks store sub and sid both by default, so a token with both ends all the user's sessions there",
            answers="invalid_request is a token that it refuses: it takes exactly one algorithm, RS256 unless it is "
            "configured otherwise; application_error is a fault of its own session store",
            subject=SubjectMode.SID_FIRST,
        ),
        "spring": Preset(
            why="takes typ logout+jwt, and RS256 unless configured otherwise",
            answers="invalid_request is a token that it refuses: RS256 is what it takes unless configured otherwise; "
            "partial_logout can pass by itself; 500 is a JWK Set of the issuer that it cannot reach",
        ),
        "duende_bff": Preset(
            why="takes any signing key of the issuer, and requires exp, which is always sent",
            answers="400 is a token that it refuses: issuer, audience, or a key that it does not find",
        ),
        "keycloak": Preset(
            why="looks at sid first; its 501 and 504 are retried as any 5xx is",
            answers="400 is a token that it refuses, or the issuer is no identity provider of that realm; 501 is a "
            "fault of its own, 504 one of a client behind it",
        ),
        "nextcloud": Preset(
            why="requires exp, iat and jti, which are always sent; an unknown sid is success",
            answers="400 is a token that it refuses, never an unknown session: compare the provider configured there",
        ),
        "pac4j": Preset(
            why="sid is mandatory",
            answers="a token without sid, of an algorithm that is not in its list, or encrypted, is refused",
            subject=SubjectMode.SID,
        ),
        "rauthy": Preset(
            why="requires a kid, and an iat of the last 30 s, which a fresh token an attempt gives",
            answers="an iat older than 30 s is refused, so compare the clocks; and it takes a key by its kid alone",
        ),
        "auth0_sample": Preset(
            why="takes typ JWT only",
            answers="a typ other than JWT is refused, and so is an iat more than 2 min old",
            typ="JWT",
        ),
    }
)
