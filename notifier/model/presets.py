"""Lists the settings that widely deployed receivers need, by name (docs/specification.md lists the receivers).

A preset is a partial profile, and the client's own settings override it. Most receivers need only the defaults
(R1–R12). Naming a preset still documents in the registry which receiver it is.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from notifier.model.client import ED25519_NAMES, Algorithm, Client, KeyManagement, SubjectMode
from notifier.model.durations import DAY_SECONDS

_REALM = re.compile(r"/realms/[^/]+/?$")  # the end of each issuer of Keycloak and Red Hat SSO


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """Settings that a receiver needs; None means the default. `why` and `answers` are texts for people.

    `requires`: the claim without which the receiver ends no session, whatever it answers. `refuses`: the algorithms
    that it never accepts. `decrypts`: the algorithms by which a token may be encrypted for it; None if unknown.
    `learns_keys_within`: the seconds after which it has read a new key of the issuer's JWK Set; 0 if it reads the set
    whenever it receives a token with an unknown key.
    """

    why: str
    answers: str = ""
    typ: str | None = None
    subject: SubjectMode | None = None
    audience: tuple[str, ...] | None = None
    requires: Literal["sub", "sid"] | None = None
    timeout: float | None = None
    refuses: frozenset[Algorithm] = frozenset()
    decrypts: frozenset[KeyManagement] | None = None
    learns_keys_within: float = 0.0


PRESETS: Mapping[str, Preset] = {
    "mod_auth_openidc": Preset(
        why="refuses a repeated jti, and every attempt has a fresh one anyway; it decrypts RSA-OAEP alone",
        answers="it answers 400 for every failure; its error log has the reason: the algorithm if one is pinned, "
        "an iat more than 600 s off, a key that it does not find, a session that it does not know",
        decrypts=frozenset({KeyManagement.RSA_OAEP}),
    ),
    "express_openid_connect": Preset(
        why="its hooks store sub and sid both by default, so a token with both ends all the user's sessions there",
        answers="invalid_request is a token that it refuses: it takes exactly one algorithm, RS256 unless it is "
        "configured otherwise; application_error is a fault in its session store",
        subject=SubjectMode.SID_FIRST,
    ),
    "spring": Preset(
        why="takes typ logout+jwt, and RS256 unless configured otherwise",
        answers="invalid_request is a token that it refuses: RS256 is what it takes unless configured otherwise; "
        "partial_logout can pass by itself; 500 is a JWK Set of the issuer that it cannot reach",
    ),
    "duende_bff": Preset(
        why="ends the session by sub and sid, and revokes refresh tokens before it answers; it takes no EdDSA "
        "(Ed25519), and keeps the issuer's keys for 12 h",
        answers="200 does not prove a logout: a wrong address or sub looks delivered too; 400 is a token "
        "that it refuses: issuer, audience, EdDSA, or a key newer than its copy of the JWK Set, which it reads "
        "every 12 h and when it is started; 500 is any internal fault there, such as an unreachable issuer",
        subject=SubjectMode.BOTH,
        timeout=10.0,
        refuses=ED25519_NAMES,
        learns_keys_within=DAY_SECONDS,
    ),
    "keycloak": Preset(
        why="looks at sid first, and compares it with session_state of the token response, which only Keycloak "
        "sends: behind any other provider it is keycloak_broker; its 501 and 504 are retried as any 5xx is",
        answers="200 with a sid that it does not know ends nothing; 400 is a token that it refuses, or the issuer "
        "is not an identity provider of that realm; 501 is an internal fault there, 504 one of a client behind it",
    ),
    "keycloak_broker": Preset(
        why="finds sessions by sub alone, and ends all of the user's: it compares sid with session_state of the "
        "token response, which providers other than Keycloak do not send",
        answers="200 does not prove a logout; 400 is a token that it refuses, or the issuer is not an identity "
        "provider of that realm; 501 is an internal fault there, 504 one of a client behind it",
        subject=SubjectMode.SUB,
    ),
    "quarkus": Preset(
        why="200 means that it remembers the logout in memory, by sub, until the browser's next request; it reads "
        "no new key for a logout token",
        answers="200 does not prove a logout: set quarkus.oidc.logout.backchannel.logout-token-key=sid there, "
        "and token-cache-size above the number of sessions; 400 is a token that it refuses, or one without sub, "
        "or a key newer than its copy of the JWK Set",
        subject=SubjectMode.BOTH,
        requires="sub",
        learns_keys_within=DAY_SECONDS,
    ),
    "open_liberty": Preset(
        why="ends nothing by sid alone, though it answers 200",
        answers="400 is a token that it refuses, or a session that is over already",
        subject=SubjectMode.BOTH,
        requires="sub",
    ),
    "synapse": Preset(
        why="sid is mandatory, and a sub that it maps to another user ends nothing, though it answers 200",
        answers="200 does not prove a logout; 400 is a token that it refuses; 500 is a key that it does not know",
        subject=SubjectMode.SID,
        requires="sid",
    ),
    "django_lasuite": Preset(
        why="finds sessions by sub alone, and ends all of the user's; it takes no iat ahead of its clock",
        answers="204 does not prove a logout; 400 is a token that it refuses, an iat ahead of its clock, or a "
        "JWK Set that it cannot read",
        subject=SubjectMode.SUB,
        requires="sub",
    ),
    "django_pyoidc": Preset(
        why="finds sessions by sub alone, and ends all of the user's; it takes no iat ahead of its clock",
        answers="200 with a sub that it does not know is not a success; the token is not verified; 500 is a token "
        "that it refuses, too",
        subject=SubjectMode.SUB,
        requires="sub",
    ),
    "nextjs_auth0": Preset(
        why="answers 500 to a token that it refuses",
        answers="204 is success, also for a session that it does not know; 500 is a token that it refuses, or a "
        "key that was published within 30 s after its last reading of the JWK Set",
    ),
    "nextcloud": Preset(
        why="requires exp, iat and jti, which are always sent; an unknown sid is success",
        answers="400 is a token that it refuses, never an unknown session: compare the provider configured there",
    ),
    "pac4j": Preset(
        why="sid is mandatory",
        answers="a token without sid, of an algorithm that is not in its list, or encrypted, is refused",
        subject=SubjectMode.SID,
        requires="sid",
        decrypts=frozenset(),
    ),
    "rauthy": Preset(
        why="requires a kid, and an iat of the last 30 s, which a fresh token an attempt gives",
        answers="an iat older than 30 s is refused, so compare the clocks; and it takes a key by its kid alone",
    ),
    "lemonldap": Preset(
        why="aud must be a list with its client id, and the token less than 30 s old, as one an attempt is",
        answers="400 has the reason in its text; a bare 500 is an aud, iat, events or nonce that it does not take:"
        " compare the client id and the clocks; 501 is an old release, such as 2.16, that takes no logout token",
        audience=(),
    ),
    "auth0_sample": Preset(
        why="takes typ JWT only",
        answers="a typ other than JWT is refused, and so is an iat more than 2 min old",
        typ="JWT",
    ),
}


def find_preset_excess(client: Client) -> str | None:
    """Return why the receiver of the client's preset always answers 400 to its tokens; None if no reason is known."""
    if (preset := PRESETS.get(client.preset or "")) is None:
        return None
    if client.token.alg in preset.refuses:
        return f"preset {client.preset} takes no {client.token.alg}, so it answers 400: {preset.why}"
    encryption, supported = client.encryption, preset.decrypts
    if encryption is None or supported is None or encryption.alg in supported:
        return None
    limit = "takes no encrypted tokens"
    if supported:
        limit = f"takes encrypted tokens by {', '.join(sorted(supported))} alone"
    return f"preset {client.preset} {limit}, and the client is registered with {encryption.alg}, so it answers 400"


def find_preset_doubt(client: Client) -> tuple[str, str] | None:
    """Return why a receiver of this preset may answer 200 without ending a session, and the remedy; or None."""
    if client.preset == "keycloak" and _REALM.search(client.iss) is None:
        text = (
            f"preset keycloak compares sid with session_state of the token response, and {client.iss} is not a realm of"
            " Keycloak, which sends it: each logout is answered 200 and ends no session"
        )
        return text, "name the preset keycloak_broker, unless the provider sends session_state"
    if client.preset == "keycloak_broker" and client.backchannel_logout_session_required:
        text = (
            "backchannel_logout_session_required puts a sid into each token, by which preset keycloak_broker finds no"
            " session: each logout is answered 200 and ends none"
        )
        return text, "register it with backchannel_logout_session_required: false"
    return None


def warn_of_new_key(client: Client, age_seconds: float) -> str | None:
    """Return a warning if the client may not have read the signing key yet, published `age_seconds` ago."""
    if (preset := PRESETS.get(client.preset or "")) is None or age_seconds >= preset.learns_keys_within:
        return None
    return (
        f"the key is {max(age_seconds, 0.0) / 3600:.1f} h old, and {client.preset} may know it after "
        f"{preset.learns_keys_within / 3600:g} h only: restart the client, or wait; if that does not help, compare its"
        " issuer and audience"
    )
