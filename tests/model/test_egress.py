"""Where a logout token may be sent (B3–B6). `tests/network/http/egress_cases.py` holds the cases one by one."""

from ipaddress import IPv4Address, IPv6Address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from notifier.model.client import EgressPolicy
from notifier.model.egress import judge

STRICT = EgressPolicy()


NAT64 = ip_network("64:ff9b::/96")


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
