"""Receivers that are widely deployed, by name, and what each needs otherwise than by default (SPEC.md's table).

A preset is a partial profile: what a client's registration sets itself wins. Most receivers need nothing beyond the
defaults, which were chosen to suit them (R1–R12); naming one still says, in the registry, who is at the other end.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from notifier.domain.client import SubjectMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """What a receiver needs; None where the default suits it. `why` is for people."""

    why: str
    typ: str | None = None
    subject: SubjectMode | None = None


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "mod_auth_openidc": Preset(why="refuses a repeated jti, and every attempt has a fresh one anyway"),
        "express_openid_connect": Preset(
            why="its hooks store sub and sid both by default, so a token with both ends all the user's sessions there",
            subject=SubjectMode.SID_FIRST,
        ),
        "spring": Preset(why="takes typ logout+jwt, and RS256 unless configured otherwise"),
        "duende_bff": Preset(why="takes any signing key of the issuer, and requires exp, which is always sent"),
        "keycloak": Preset(why="looks at sid first; its 501 and 504 are retried as any 5xx is"),
        "nextcloud": Preset(why="requires exp, iat and jti, which are always sent; an unknown sid is success"),
        "pac4j": Preset(why="sid is mandatory", subject=SubjectMode.SID),
        "rauthy": Preset(why="requires a kid, and an iat of the last 30 s, which a fresh token an attempt gives"),
        "auth0_sample": Preset(why="takes typ JWT only", typ="JWT"),
    }
)
