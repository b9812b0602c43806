"""Test outcomes, records and egress."""

from dataclasses import field
from dataclasses import replace as slow_replace
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.model.client import EgressPolicy, ResponsePolicy
from notifier.model.egress import check_address, find_uri_issue
from notifier.model.outcome import Delivered, Failed, HttpResponse, read_retry_after, to_outcome
from notifier.model.record import copy_record, record

# ── The outcome of an answer or a break (B27, B28, R3, R11, R12) ─────────────────────────────────────────────────────


PLAIN = ResponsePolicy()
NOW = 1_000_000_000.0  # Sun, 09 Sep 2001 01:46:40 GMT


@given(st.integers(100, 999), st.text(max_size=20))
def test_every_status_has_one_outcome_that_keeps_status_and_text(status: int, text: str) -> None:
    """Only 2xx is delivered; no status is both refused and retried."""
    outcome = to_outcome(HttpResponse(status=status, text=text), PLAIN, NOW)
    assert (outcome.status, outcome.text) == (status, text)
    assert isinstance(outcome, Delivered) == (200 <= status < 300)
    assert isinstance(outcome, Failed) == (status in (408, 425, 429) or status >= 500)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("1.5", None),
        ("-1", None),
        ("٣", None),
        ("9" * 10_000, 999_999_999_999.0),
        ("Sun, 09 Sep 2001 01:47:40 GMT", 60.0),
        ("Sunday, 09-Sep-01 01:47:40 GMT", 60.0),
        ("Sun Sep  9 01:47:40 2001", 60.0),
        ("Sun, 09 Sep 2001 03:47:40 +0200", 60.0),
        ("Sun, 09 Sep 2001 01:00:00 GMT", 0.0),
        ("Sun, 99 Sep 2001 01:00:00 GMT", None),
        ("Sun, 09 Sep 99999 01:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    """RFC 9110 §10.2.3 with §5.6.7's three forms of a date; an unreadable value is ignored."""
    assert read_retry_after(value, None, NOW) == seconds


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        ("Sun, 09 Sep 2001 02:06:43 GMT", "Sun, 09 Sep 2001 02:06:40 GMT", 3.0),
        ("Sun, 09 Sep 2001 01:26:43 GMT", "Sun, 09 Sep 2001 01:26:40 GMT", 3.0),
        ("Sun, 09 Sep 2001 01:26:39 GMT", "Sun, 09 Sep 2001 01:26:40 GMT", 0.0),
        ("Sunday, 09-Sep-01 01:47:40 GMT", "Sun Sep  9 01:47:30 2001", 10.0),
        ("Sun, 09 Sep 2001 01:47:40 GMT", "yesterday", 60.0),
        ("Sun, 09 Sep 2001 01:47:40 GMT", "", 60.0),
        ("120", "Sun, 09 Sep 2001 02:06:40 GMT", 120.0),
    ],
)
def test_a_date_is_compared_with_that_of_the_answer(value: str, date: str, seconds: float) -> None:
    """The clock of the client may be 20 minutes ahead of ours. Seconds need no clock."""
    assert read_retry_after(value, date, NOW) == seconds


# ── Records that are immutable only for the type checker ─────────────────────────────────────────────────────────────


@record
class Point:
    """A record of three fields."""

    x: int
    y: int = 2
    seen: tuple[str, ...] = field(default=())


def test_replace_equals_that_of_dataclasses() -> None:
    """It leaves the original unchanged."""
    first = Point(x=1, seen=("a",))
    assert copy_record(first, y=5) == slow_replace(first, y=5) == Point(x=1, y=5, seen=("a",))
    assert first == Point(x=1, seen=("a",))


def test_replace_refuses_an_unknown_field() -> None:
    """A typing error must not pass."""
    with pytest.raises(AttributeError, match="'Point' object has no attribute 'z'"):
        copy_record(Point(x=1), z=3)


# ── Where a logout token may be sent (B3–B6). `tests/network/http/test_egress_table.py` has the cases ────────────────
#


STRICT = EgressPolicy()


NAT64 = ip_network("64:ff9b::/96")


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("https://shop.example.com/out ", "ends with a blank; remove it"),
        ("https://shop.example.com/out\n", "ends with U+000A (a control character); remove it"),
        ("https://shop.example.com/\u200bout", "holds the invisible character U+200B (ZERO WIDTH SPACE); remove it"),
        ("“https://shop.example.com/out”", "begins with the quotation mark “, as part of the value; remove it"),
        *(
            (f"https://a.example.com/out{by}https://b.example.com/", "has two addresses")
            for by in (" ", "\n", ", ", " | ", ",", ";", "|", "##")
        ),
        *((f"https://a.example.com{by}https://b.example.com", "has two addresses") for by in (" ", ",", ";", "")),
        ("https://shop.example.com/ö", "has a character that no URI may have: percent-encode it"),
        ("shop.example.com/out", "must be an absolute URI that begins with https://"),
    ],
)
def test_invisible_characters_of_a_uri_are_reported(uri: str, text: str) -> None:
    """It is invisible; at a client, in an event and in a list."""
    assert (find_uri_issue(uri) or "").startswith(text)


@given(st.ip_addresses() | st.ip_addresses(network=str(NAT64)))
def test_special_addresses_of_the_standard_library_are_refused(address: IPv4Address | IPv6Address) -> None:
    """The listed ranges contain all that `ipaddress` calls private, multicast, reserved or link-local.

    An address of the well-known prefix of NAT64 is the IPv4 address in it.
    """
    if check_address(address, STRICT) is None:
        if address in NAT64:
            address = IPv4Address(int(address) & 0xFFFF_FFFF)
        assert address.is_global
        assert not any((address.is_multicast, address.is_reserved, address.is_link_local))
        assert check_address(str(address), STRICT) is None


@given(st.ip_addresses())
def test_allowed_address_must_not_embed_another(
    address: IPv4Address | IPv6Address,
) -> None:
    """The narrowest `allow` permits every address except an embedded IPv4 address."""
    if check_address(address, EgressPolicy(allow=(ip_network(str(address)),))) is not None:
        assert isinstance(address, IPv6Address)
