"""The receiver that is played for `duende_bff` answers as a real one did, token by token.

`recorded/duende_bff-4.2.0.txt` is what Duende's BFF 4.2.0 answered to each kind of token, and which sessions it had
left: two of alice's, S1 and S2, and one of bob's.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from joserfc import jws
from joserfc.jwk import Key, RSAKey

from notifier.adapters.signers.key_files import generate_key
from notifier.domain.client import Algorithm
from notifier.domain.presets import PRESETS
from tests.adapters.signers.key_folder import ISS, NOW, Folder
from tests.receivers_of_the_world.receivers import EVENT, WORLD, Site

RECORDED = Path(__file__).parent / "recorded/duende_bff-4.2.0.txt"
LINE = re.compile(r"(.+?) +(\d{3}) body '(.*)' left: S1 (\d) S2 (\d) bob (\d)")
SIGNED_IN = frozenset({("alice", "S1"), ("alice", "S2"), ("bob", "B1")})
KINDS = ("RS256", "ES256", "ES384", "ES512", "EdDSA")
DAYS = 864_000


class Forge:
    """Signs whatever it is told to, with the issuer's keys or with a stranger's."""

    def __init__(self, folder: Path) -> None:
        self._keys: dict[str, Key] = {kind: Folder(folder).joserfc(kind) for kind in KINDS}
        self._keys["other"] = RSAKey.import_key(generate_key(Algorithm.RS256).decode())

    def jwks(self) -> dict[str, Any]:
        """What the issuer publishes."""
        return {"keys": [dict(self._keys[kind].as_dict(private=False), kid=self.kid(kind)) for kind in KINDS]}

    def kid(self, kind: str) -> str:
        """As notifier names it."""
        return self._keys[kind].thumbprint()

    def body(
        self,
        alg: str = "RS256",
        *,
        key: str | None = None,
        head: dict[str, str | None] | None = None,
        drop: tuple[str, ...] = (),
        **claims: object,
    ) -> bytes:
        """The form with a good token that differs in what is said here; None in `head` leaves a member out."""
        kind = key or ("RS256" if alg[:2] in ("RS", "PS") else alg)
        header = {"alg": alg, "typ": "logout+jwt", "kid": self.kid(kind)} | (head or {})
        now = int(NOW)
        good = {
            "iss": ISS,
            "aud": "shop",
            "iat": now,
            "exp": now + 120,
            "jti": "j",
            "events": {EVENT: {}},
            "sub": "alice",
            "sid": "S1",
        }
        told = {name: value for name, value in {**good, **claims}.items() if name not in drop}
        named = {name: value for name, value in header.items() if value is not None}
        return form(jws.serialize_compact(named, json.dumps(told).encode(), self._keys[kind], algorithms=[alg]))


def form(token: str) -> bytes:
    return urlencode({"logout_token": token}).encode()


def kinds(forge: Forge) -> dict[str, Callable[[], bytes]]:
    """Each kind of token, by its name in the record."""
    body, now = forge.body, int(NOW)
    algorithms = ("RS256", "PS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA")
    return {
        **{f"alg {alg}": lambda alg=alg: body(alg) for alg in algorithms},  # type: ignore[misc]
        "alg HS256 with the public key's text as secret": lambda: form(
            "eyJhbGciOiJIUzI1NiJ9.e30." + "A" * 43  # whatever it is signed with
        ),
        "typ JWT": lambda: body(head={"typ": "JWT"}),
        "typ left out": lambda: body(head={"typ": None}),
        "typ at+jwt": lambda: body(head={"typ": "at+jwt"}),
        "no kid": lambda: body(head={"kid": None}),
        "unknown kid, right key": lambda: body(head={"kid": "nobody"}),
        "key not in the JWKS": lambda: body(key="other"),
        "key not in the JWKS, a kid that is": lambda: body(key="other", head={"kid": forge.kid("RS256")}),
        "aud of another": lambda: body(aud="mail"),
        "aud a list with ours": lambda: body(aud=["mail", "shop"]),
        "no aud": lambda: body(drop=("aud",)),
        "wrong issuer": lambda: body(iss="https://evil.example.com"),
        "issuer with a slash": lambda: body(iss=ISS + "/"),
        "no iss": lambda: body(drop=("iss",)),
        "no exp": lambda: body(drop=("exp",)),
        "exp 4 min ago": lambda: body(exp=now - 240),
        "exp 6 min ago": lambda: body(exp=now - 360),
        "iat 10 days ago": lambda: body(iat=now - DAYS),
        "iat 10 days ahead": lambda: body(iat=now + DAYS),
        "no iat": lambda: body(drop=("iat",)),
        "nbf 10 min ahead": lambda: body(nbf=now + 600),
        "no jti": lambda: body(drop=("jti",)),
        "a token": lambda: body(jti="same"),
        "the same token again": lambda: body(jti="same"),
        "the same jti, another token": lambda: body(jti="same", foo=1),
        "sid alone": lambda: body(drop=("sub",)),
        "sub alone": lambda: body(drop=("sid",)),
        "neither": lambda: body(drop=("sub", "sid")),
        "unknown sid, known sub": lambda: body(sid="nobody"),
        "known sid, another sub": lambda: body(sub="bob"),
        "unknown sid alone": lambda: body(drop=("sub",), sid="nobody"),
        "unknown sub alone": lambda: body(drop=("sid",), sub="nobody"),
        "empty sid, sub alice": lambda: body(sid=""),
        "nonce": lambda: body(nonce="x"),
        "no events": lambda: body(drop=("events",)),
        "events of another": lambda: body(events={"x": {}}),
        "events as text": lambda: body(events=json.dumps({EVENT: {}})),
        "extra claim logout_reason": lambda: body(logout_reason="session_expiration"),
        "not a token": lambda: form("nonsense"),
        "empty": lambda: form(""),
        "body as JSON": lambda: json.dumps({"logout_token": "x.y.z"}).encode(),
    }


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Forge:
    """The keys of one issuer."""
    return Forge(tmp_path_factory.mktemp("forge"))


def recorded() -> dict[str, tuple[int, str, list[int]]]:
    """By kind: status, body, and how many sessions were left: S1, S2, bob's."""
    found = {}
    for line in RECORDED.read_text().splitlines():
        if (told := LINE.match(line)) is not None:
            name, status, body, *left = told.groups()
            found[name] = (int(status), body, [int(count) for count in left])
    return found


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
def test_it_answers_each_kind_of_token_as_the_real_one(forge: Forge) -> None:
    """Status, an empty body, and which sessions are gone."""
    site = Site(
        row=WORLD["duende_bff"], jwks=forge.jwks(), iss=ISS, client_id="shop", clock=lambda: NOW, sessions=set()
    )
    played = {}
    for name, make in kinds(forge).items():
        site.sessions = set(SIGNED_IN)
        status, body = site.receive(make())
        left = [sum(one[1] == sid for one in site.sessions) for sid in ("S1", "S2", "B1")]
        played[name] = (status, body, left)
    assert len(played) == 49
    assert played == recorded()


def test_the_preset_is_what_the_real_one_needs() -> None:
    """It refuses exactly the algorithms that the record shows refused."""
    answers = {name.removeprefix("alg "): told[0] for name, told in recorded().items() if name.startswith("alg ")}
    preset = PRESETS["duende_bff"]
    assert preset.refuses == {alg for alg in Algorithm if answers.get(alg, 200) == 400}
    assert {alg for alg, status in answers.items() if status == 200} <= WORLD["duende_bff"].algs
    assert not preset.refuses & {Algorithm(alg) for alg in WORLD["duende_bff"].algs}
