"""Test the claims of a logout token for every profile of a client."""

from dataclasses import replace
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.model.client import (
    Client,
    FrontChannelClient,
    FrontChannelWay,
    SubjectMode,
    TokenProfile,
)
from notifier.model.delivery import Delivery
from notifier.model.logout_token import (
    LOGOUT_EVENT,
    RESERVED_CLAIMS,
    Claims,
    Subject,
    build_claims,
    has_session,
    subject_of,
)
from notifier.model.outcome import DeadReason

ISS = "https://id.example.com"
NOW = 1_750_000_000.9


def delivery(*, sub: str | None = "alice", sid: str | None = "s-1", **more: object) -> Delivery:
    base: dict[str, object] = {"id": "d", "event_id": "e", "id_given": True, "iss": ISS, "client_id": "shop"}
    return Delivery(**{**base, "sub": sub, "sid": sid, **more})  # type: ignore[arg-type]


def client(profile: TokenProfile | None = None, *, required: bool = False, pairwise: bool = False) -> Client:
    return Client(
        iss=ISS,
        client_id="shop",
        backchannel_logout_uri="https://shop.example.com/logout",
        backchannel_logout_session_required=required,
        pairwise=pairwise,
        token=profile or TokenProfile(),
    )


def claims_of(a_delivery: Delivery, a_client: Client) -> Claims:
    claims = build_claims(a_delivery, a_client, now=NOW, jti="j-1")
    assert isinstance(claims, dict)
    return claims


def test_the_claims_of_a_plain_client() -> None:
    """Every required claim and nothing else (B10); `aud` a string (R5); `events` exactly `{}` (B11, R4)."""
    assert claims_of(delivery(), client()) == {
        "iss": ISS,
        "aud": "shop",
        "iat": 1_750_000_000,
        "exp": 1_750_000_120,
        "jti": "j-1",
        "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
        "sub": "alice",
        "sid": "s-1",
    }


@pytest.mark.parametrize(("more", "aud"), [((), ["shop"]), (("api", "web"), ["shop", "api", "web"])])
def test_aud_is_a_list_if_the_client_requires_one(more: tuple[str, ...], aud: list[str]) -> None:
    """With its own name first (R5)."""
    assert claims_of(delivery(), client(TokenProfile(audience=more)))["aud"] == aud


BOTH, SID_FIRST, SID, SUB = SubjectMode.BOTH, SubjectMode.SID_FIRST, SubjectMode.SID, SubjectMode.SUB
NO_SID, NO_SUB = DeadReason.NO_SID, DeadReason.NO_SUB


@pytest.mark.parametrize(
    ("mode", "sub", "sid", "expected"),
    [
        (BOTH, "u", "s", ("u", "s")),
        (BOTH, "u", None, ("u", None)),
        (BOTH, None, "s", (None, "s")),
        (SID_FIRST, "u", "s", (None, "s")),
        (SID_FIRST, "u", None, ("u", None)),
        (SID_FIRST, None, "s", (None, "s")),
        (SID, "u", "s", (None, "s")),
        (SID, "u", None, NO_SID),
        (SUB, "u", "s", ("u", None)),
        (SUB, "u", None, ("u", None)),
        (SUB, None, "s", NO_SUB),
    ],
)
def test_profile_selects_sub_and_sid(
    mode: SubjectMode, sub: str | None, sid: str | None, expected: tuple[str | None, str | None] | DeadReason
) -> None:
    """R8: `both` is what the event has, `sid_first` and `sid` never both, `sub` never `sid`."""
    subject = subject_of(delivery(sub=sub, sid=sid), client(TokenProfile(subject=mode)))
    assert subject == (expected if isinstance(expected, DeadReason) else Subject(sub=expected[0], sid=expected[1]))


@pytest.mark.parametrize("mode", SubjectMode)
def test_a_client_that_requires_sid_gets_it_in_every_mode(mode: SubjectMode) -> None:
    """B7: `backchannel_logout_session_required` means that the token carries `sid`, or there is none."""
    a_client = client(TokenProfile(subject=mode), required=True)
    assert claims_of(delivery(), a_client)["sid"] == "s-1"
    assert build_claims(delivery(sid=None), a_client, now=NOW, jti="j") is NO_SID


@pytest.mark.parametrize(
    ("mode", "sid", "entry_sub", "expected"),
    [
        (BOTH, "s", True, ("pair", "s")),
        (BOTH, "s", False, (None, "s")),
        (BOTH, None, True, ("pair", None)),
        (BOTH, None, False, NO_SUB),
        (SID_FIRST, None, True, ("pair", None)),
        (SID_FIRST, None, False, NO_SUB),
        (SUB, "s", True, ("pair", None)),
        (SUB, "s", False, NO_SUB),
        (SID, None, False, NO_SID),
    ],
)
def test_a_pairwise_client_never_gets_the_events_own_sub(
    mode: SubjectMode, sid: str | None, entry_sub: bool, expected: tuple[str | None, str | None] | DeadReason
) -> None:
    """Only the `sub` of its own entry; without one `sid` only, and without both no token."""
    a_delivery = delivery(sub="pair", sid=sid, entry_sub=entry_sub)
    subject = subject_of(a_delivery, client(TokenProfile(subject=mode), pairwise=True))
    assert subject == (expected if isinstance(expected, DeadReason) else Subject(sub=expected[0], sid=expected[1]))


def test_whether_a_token_names_a_session() -> None:
    """`has_session` follows the token, not the event: `sub` mode drops the `sid` that the event has."""
    assert has_session(delivery(), client())
    assert not has_session(delivery(sid=None), client())
    assert not has_session(delivery(), client(TokenProfile(subject=SUB)))
    assert not has_session(delivery(sid=None), client(TokenProfile(subject=SID)))


@pytest.mark.parametrize("sid", ["s-1", None])
def test_front_channel_call_by_a_worker_has_the_session_of_the_event(sid: str | None) -> None:
    """It has no token, so the token profile does not matter. In a browser the profile does."""
    for way in FrontChannelWay:
        front = FrontChannelClient(frontchannel_logout_uri="https://shop.example.com/out", way=way)
        called = replace(client(TokenProfile(subject=SUB)), backchannel_logout_uri=None, front_channel=front)
        assert has_session(delivery(sid=sid), called) is (way is FrontChannelWay.SERVER and sid is not None)


@pytest.mark.parametrize(("lifetime", "seconds"), [(120.0, 120), (30.0, 30), (0.5, 1), (1.2, 2), (600.0, 120)])
def test_lifetime_is_whole_seconds_up_to_two_minutes(lifetime: float, seconds: int) -> None:
    """B29: `exp` is at most 120 s ahead in every profile; a fraction of a second is rounded up."""
    claims = claims_of(delivery(), client(TokenProfile(lifetime=lifetime)))
    assert claims["exp"] == 1_750_000_000 + seconds


def test_extra_claims_and_the_reason() -> None:
    """B15: the profile's claims, and the event's reason under the client's name for it."""
    a_client = client(TokenProfile(claims=MappingProxyType({"tenant": 7}), reason_claim="why"))
    claims = claims_of(delivery(reason="terminated"), a_client)
    assert (claims["tenant"], claims["why"]) == (7, "terminated")
    assert "why" not in claims_of(delivery(reason=None), a_client)
    assert "terminated" not in claims_of(delivery(reason="terminated"), client()).values()


subjects = st.one_of(st.none(), st.text(min_size=1, max_size=8))
names = st.one_of(st.sampled_from(sorted(RESERVED_CLAIMS)), st.text(max_size=6))
profiles = st.builds(
    TokenProfile,
    subject=st.sampled_from(SubjectMode),
    lifetime=st.floats(min_value=0.001, max_value=10_000),
    claims=st.dictionaries(names, st.one_of(st.text(), st.integers()), max_size=5),
    reason_claim=st.one_of(st.none(), names),
)


@given(
    profile=profiles,
    sub=subjects,
    sid=subjects,
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    reason=st.one_of(st.none(), st.text()),
    now=st.floats(min_value=0, max_value=4e9),
)
def test_every_profile_meets_the_specification(
    profile: TokenProfile,
    sub: str | None,
    sid: str | None,
    flags: tuple[bool, bool, bool],
    reason: str | None,
    now: float,
) -> None:
    """For any profile and event: never `nonce` (B14), a subject (B12), B29, R4, R5, R10; or the reason why not."""
    required, pairwise, entry_sub = flags
    a_delivery = delivery(sub=sub, sid=sid, entry_sub=entry_sub, reason=reason)
    a_client = client(profile, required=required, pairwise=pairwise)
    claims = build_claims(a_delivery, a_client, now=now, jti="j")
    if not isinstance(claims, dict):
        assert claims in (NO_SID, NO_SUB)
        assert not has_session(a_delivery, a_client)
        return
    iat, exp = claims["iat"], claims["exp"]
    assert type(iat) is int
    assert type(exp) is int
    assert now - 1 < iat <= now
    assert 0 < exp - iat <= 120
    assert (claims["iss"], claims["aud"], claims["jti"]) == (ISS, "shop", "j")
    assert claims["events"] == {LOGOUT_EVENT: {}}
    assert not {"nonce", "nbf"} & set(claims)
    assert "sub" in claims or "sid" in claims
    assert claims.get("sub") in (None, sub)
    assert claims.get("sid") in (None, sid)
    assert ("sid" in claims) is has_session(a_delivery, a_client)
    assert "sid" in claims or not required
    assert not (pairwise and not entry_sub and "sub" in claims)
    if reason is not None and profile.reason_claim is not None and profile.reason_claim not in RESERVED_CLAIMS:
        assert claims[profile.reason_claim] == reason
