"""Test times and waits: timestamps, durations, backoff; and identifiers."""

from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.model import json_size
from notifier.model.backoff import MAX_DEFERRAL_SECONDS, compute_backoff, deferral_wait
from notifier.model.client import Algorithm, RetryPolicy
from notifier.model.delivery import ClientOverrides, Delivery, DeliveryIds
from notifier.model.durations import format_duration, parse_duration
from notifier.model.ids import new_id
from notifier.model.moment import format_moment, parse_moment
from notifier.model.outcome import Failed, Reason
from notifier.model.progress import MAX_ANSWER_BYTES, MAX_HISTORY_BYTES, MAX_HISTORY_LENGTH, NO_PROGRESS

# ── RFC 3339 timestamps. `test_event_document` has the refused forms ─────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0.0),
        ("2026-01-31t12:00:00.5z", 1769860800.5),
        ("2026-01-31 13:00:00+01:00", 1769860800.0),
        ("2026-01-31T12:00:00.123456789Z", 1769860800.123456),
        ("2016-12-31T23:59:60Z", 1483228799.0),
        ("0001-01-01T00:00:00+10:00", -62135632800.0),
    ],
)
def test_every_form_of_rfc_3339_is_read(text: str, expected: float) -> None:
    """Small letters, a space, any fraction, a leap second."""
    assert parse_moment(text) == expected


@given(st.integers(-(10**15), 10**16))
def test_a_rendered_time_is_read_back(microseconds: int) -> None:
    """To the microsecond, in UTC."""
    moment = microseconds / 1e6
    assert parse_moment(format_moment(moment)) == pytest.approx(moment, abs=2e-6)


@pytest.mark.parametrize("moment", [1e30, 253402300800.0, float("inf"), float("nan")])
def test_a_time_after_the_calendar_is_its_last(moment: float) -> None:
    """A dead letter must be readable whatever it contains, and no far limit of a filter looks like a past one."""
    assert format_moment(moment) == "9999-12-31T23:59:59.999969Z"


@pytest.mark.parametrize("moment", [-1e30, float("-inf")])
def test_a_time_before_the_calendar_is_its_first(moment: float) -> None:
    """As that of an age of a million years."""
    assert format_moment(moment) == "0001-01-01T00:00:00.000000Z"


# ── Durations and sizes as operators write them ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("5s", 5.0),
        ("1.5s", 1.5),
        ("2m", 120.0),
        ("24h", 86_400.0),
        ("7d", 604_800.0),
        (" 5 s ", 5.0),
        ("0s", 0.0),
        (0, 0.0),
        ("0", 0.0),
    ],
)
def test_units(text: object, seconds: float) -> None:
    """A number and a unit; 0 alone needs none."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("value", [5, 0.5, "5", "1.5"])
def test_a_bare_number(value: object) -> None:
    """A bare number is refused with the advice to write a unit."""
    with pytest.raises(ValueError, match=f"^{value} has no unit: write {value}s if seconds are meant"):
        parse_duration(value)


@pytest.mark.parametrize(
    "value",
    ["", "s", "-5s", "5 seconds", "5S", "1h30m", "٥s", "1e3s", "9" * 40 + "s", "inf", True, False, None, [], {}],
)
def test_no_duration(value: object) -> None:
    """Anything else is refused with valid examples."""
    with pytest.raises(ValueError, match="is not a duration: write a number and a unit, such as 500ms"):
        parse_duration(value)


@given(st.integers(0, 10**11))
def test_round_trip(milliseconds: int) -> None:
    """A formatted duration is read back as the same, to the millisecond."""
    assert parse_duration(format_duration(milliseconds / 1000)) == milliseconds / 1000


# ── Backoff: the wait between two attempts, and the end of a deferral ────────────────────────────────────────────────


MIDDLE = 0.5  # jitter of zero


def test_default_waits() -> None:
    """2 s, 6 s, 18 s, 54 s, 2 m 42 s, 8 m 6 s, 24 m 18 s, then every hour."""
    waits = [compute_backoff(RetryPolicy(), tries, lambda: MIDDLE) for tries in range(1, 11)]
    assert waits == [2, 6, 18, 54, 162, 486, 1458, 3600, 3600, 3600]


@given(tries=st.integers(1, 10_000), draw=st.floats(0, 1, exclude_max=True))
def test_jitter_moves_a_wait_by_a_quarter_at_most(tries: int, draw: float) -> None:
    """±25 %, for any number of attempts: no overflow, no negative wait."""
    policy = RetryPolicy()
    plain = compute_backoff(policy, tries, lambda: MIDDLE)
    assert 0.75 * plain <= compute_backoff(policy, tries, lambda: draw) <= 1.25 * plain


@pytest.mark.parametrize(
    ("seconds", "down", "up"), [(0, 1, 1), (-5, 1, 1), (5, 4, 8), (8, 8, 8), (511.999, 512, 512), (1e9, 65536, 65536)]
)
def test_a_deferral_waits_for_a_power_of_two_seconds(seconds: float, down: int, up: int) -> None:
    """A time within the transition to the queue does not halve the wait."""
    assert (deferral_wait(seconds), deferral_wait(seconds, "up")) == (down, up)


@given(seconds=st.floats(1, MAX_DEFERRAL_SECONDS))
def test_deferral_lasts_at_least_half_of_its_time(seconds: float) -> None:
    """If it was rounded up, it ends between its time and the double."""
    assert seconds / 2 <= deferral_wait(seconds) <= seconds + max(0.01, min(0.5, seconds / 1024))
    assert seconds - 0.001 <= deferral_wait(seconds, "up") < 2 * seconds + 1


# ── Generated ids are valid and unique ───────────────────────────────────────────────────────────────────────────────


def test_an_id_is_a_random_uuid_and_never_the_same() -> None:
    """R2: a `jti` is never repeated, and parses as a UUID."""
    made = [new_id() for _ in range(10_000)]
    assert len(set(made)) == len(made)
    for each in made:
        assert str(UUID(each)) == each
        assert UUID(each).version == 4
        assert UUID(each).variant == RFC_4122


# ── The history of a delivery, and its id ────────────────────────────────────────────────────────────────────────────


DELIVERY = Delivery(id="d", event_id="e", id_given=True, iss="i", client_id="c", sub="s", sid=None)
_PART = st.none() | st.text(max_size=4)
_INLINE = st.none() | st.builds(
    ClientOverrides,
    backchannel_logout_uri=_PART,
    backchannel_logout_session_required=st.none() | st.booleans(),
    id_token_signed_response_alg=st.none() | st.sampled_from(Algorithm),
)
_PARTS = st.tuples(st.text(max_size=4), _PART, _PART, st.text(max_size=4), st.text(max_size=4), _PART, _PART, _INLINE)
Parts = tuple[str, str | None, str | None, str, str, str | None, str | None, ClientOverrides | None]


def identity(parts: Parts) -> str:
    iss, publisher, source, event_id, client_id, sub, sid, inline = parts
    sent_by = (publisher, source)
    return DeliveryIds(iss=iss, sent_by=sent_by, event_id=event_id).of(client_id, sub, sid, inline)


@given(st.lists(st.integers(0, 3000), max_size=30))
def test_history_is_bounded_and_keeps_the_newest(sizes: list[int]) -> None:
    """The last ten outcomes, 1 KiB of text each and 2 KiB in all as encoded, the newest text first."""
    progress = NO_PROGRESS
    for at, size in enumerate(sizes):
        failed = Failed(reason=Reason.SERVER_ERROR, status=500, text='"' * size)
        progress = progress.after_attempt(failed, at, 0.0)
    history = progress.history
    assert [past.at for past in history] == list(range(len(sizes)))[-MAX_HISTORY_LENGTH:]
    assert sum(json_size.size(past.text) for past in history) <= MAX_HISTORY_BYTES
    if sizes:
        assert (
            MAX_ANSWER_BYTES - 8 <= json_size.size(history[-1].text) <= MAX_ANSWER_BYTES
            or len(history[-1].text) == sizes[-1]
        )


@given(_PARTS, _PARTS)
def test_different_parts_make_different_ids(one: Parts, other: Parts) -> None:
    """Neither a character moved to the next part nor an empty part for an absent one yields the same id."""
    assert (identity(one) == identity(other)) == (one == other)


def test_an_id_is_the_same_in_every_process() -> None:
    """It identifies copies, so it must not depend on the process or the release."""
    assert identity(("iss", None, "/s", "e", "c", "sub", None, None)) == "a27622f31c7a320139b78b7d6d74e144"
    inline = ClientOverrides(backchannel_logout_uri="https://c/out", backchannel_logout_session_required=True)
    assert identity(("iss", None, "/s", "e", "c", "sub", None, inline)) == "e11a5f126948ea1288f2d82930622cda"
