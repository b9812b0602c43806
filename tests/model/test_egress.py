"""Where a logout token may be sent (B3–B6). `tests/network/http/egress_cases.py` holds the cases one by one."""

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.model.client import EgressPolicy
from notifier.model.egress import judge, uri_mistake

STRICT = EgressPolicy()


NAT64 = ip_network("64:ff9b::/96")


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("https://shop.example.com/out ", "ends with a blank; remove it"),
        (" https://shop.example.com/out", "begins with a blank; remove it"),
        ("https://shop.example.com/out\n", "ends with U+000A (a control character); remove it"),
        ("https://shop.example.com/\u200bout", "holds the invisible character U+200B (ZERO WIDTH SPACE); remove it"),
        ("“https://shop.example.com/out”", "begins with the quotation mark “, as part of the value; remove it"),
        ("'https://shop.example.com/out'", "begins with the quotation mark ', as part of the value; remove it"),
        ("https://shop.example.com/ö", "has a character that no URI may have: percent-encode it"),
        ("shop.example.com/out", "must be an absolute URI that begins with https://"),
    ],
)
def test_what_was_copied_along_with_a_uri_is_named(uri: str, says: str) -> None:
    """An eye does not find it; at a client, in an event and at a list alike."""
    assert (uri_mistake(uri) or "").startswith(says)


@given(st.ip_addresses() | st.ip_addresses(network=str(NAT64)))
def test_nothing_passes_that_the_standard_library_knows_to_be_special(address: IPv4Address | IPv6Address) -> None:
    """The listed ranges hold all that `ipaddress` calls private, multicast, reserved or link-local.

    One of the well-known prefix of NAT64 is the IPv4 address in it.
    """
    if judge(address, STRICT) is None:
        if address in NAT64:
            address = IPv4Address(int(address) & 0xFFFF_FFFF)
        assert address.is_global
        assert not any((address.is_multicast, address.is_reserved, address.is_link_local))
        assert judge(str(address), STRICT) is None


@given(st.ip_addresses())
def test_an_address_allowed_by_its_own_number_is_open_unless_it_carries_another(
    address: IPv4Address | IPv6Address,
) -> None:
    """The narrowest `allow` there can be opens everything but what is an IPv4 address in another coat."""
    if judge(address, EgressPolicy(allow=(ip_network(str(address)),))) is not None:
        assert isinstance(address, IPv6Address)
