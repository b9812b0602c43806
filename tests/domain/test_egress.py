"""Where a logout token may be sent (B3–B6), by URI and by address."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.client import EgressPolicy
from notifier.domain.egress import check_uri, judge, uri_mistake

STRICT = EgressPolicy()
LOOPBACK = EgressPolicy(allow=(ip_network("127.0.0.0/8"), ip_network("::1/128")), allow_http=True)
PUBLIC = (
    "https://shop.example.com/logout", "https://shop.example.com", "https://shop.example.com?tenant=1",
    "https://shop.example.com:8443/logout?tenant=1&next=%2F%C3%A4&x=a+b", "HTTPS://Shop.Example.COM/",
    "https://shop.example.com./", "https://xn--bcher-kva.example/", "https://under_score.example/", "https://8.8.8.8/",
    "https://[2606:4700::1111]:443/", "https://1a.example/",
)  # fmt: skip
MALFORMED = (
    "", "/logout", "shop.example.com/logout", "//shop.example.com/logout", "ftp://shop.example.com/",
    "https:shop.example.com", "https:///logout", "https://:443/", "https://shop.example.com/#fragment",
    "https://shop.example.com/#", "https://user@shop.example.com/", "https://user:password@shop.example.com/",
    "https://shop.example.com:99999/", "https://shop.example.com:0/", "https://shop.example.com:/",
    "https://shop.example.com:https/", "https://shop.example.com/a b", "https://shop.example.com/a\tb",
    "https://shop.example.com/\r\nX: y", " https://shop.example.com/", "https://shop.example.com\\@evil.example/",
    "https://bücher.example/", "https://shop..example/", "https://-shop.example/", "https://%31%32%37.0.0.1/",
    "https://" + "a" * 64 + ".example/", "https://" + "a." * 130 + "example/", "https://1.2.3.4.5/",
    "https://256.0.0.1/", "https://099.0.0.1/", "https://shop.example.123/", "https://[::1/", "https://[::1%25eth0]/",
    "https://[fe80::1%eth0]/", "https://[127.0.0.1]/", "https://[v1.x]/",
)  # fmt: skip


def allowing(*networks: str, deny: tuple[str, ...] = ()) -> EgressPolicy:
    return EgressPolicy(allow=tuple(map(ip_network, networks)), deny=tuple(map(ip_network, deny)))


def _words(text: str) -> list[str]:
    return text.split()


@pytest.mark.parametrize("uri", PUBLIC)
def test_a_public_https_uri_is_allowed(uri: str) -> None:
    """B3, B4: absolute URIs with or without port, path and query pass."""
    assert check_uri(uri, STRICT) is None


@pytest.mark.parametrize("uri", MALFORMED)
def test_a_malformed_uri_is_a_mistake_whatever_the_policy(uri: str) -> None:
    """B3, B5: no policy makes a malformed URI usable."""
    assert uri_mistake(uri)
    assert check_uri(uri, LOOPBACK)


def test_http_is_opt_in() -> None:
    """B6: http only where it is allowed, and the text names the setting."""
    assert uri_mistake("http://shop.example.com/") is None
    assert "egress.allow_http" in (check_uri("http://shop.example.com/", STRICT) or "")
    assert check_uri("http://shop.example.com/", EgressPolicy(allow_http=True)) is None


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "0x7f000001", "0X7F.1", "2130706433", "0177.0.0.1", "127.0.0.1.", "0x7f.0.0.0x1", "[::1]"],
)
def test_an_address_in_disguise_is_judged_as_the_address(host: str) -> None:
    """What inet_aton reads as 127.0.0.1 is loopback however it is written; where that is allowed, write it as such."""
    uri = f"https://{host}:8443/logout"
    assert uri_mistake(uri) is None
    assert "egress.allow" in (check_uri(uri, STRICT) or "")
    plain = host in ("127.0.0.1", "[::1]")
    assert check_uri(uri, LOOPBACK) == (None if plain else "must write its address as 127.0.0.1")


@pytest.mark.parametrize(
    "address",
    _words("""
    0.0.0.0 0.1.2.3 10.1.2.3 100.64.0.1 100.127.255.255 127.0.0.1 169.254.1.1 169.254.169.254 172.16.0.1 172.31.255.255
    192.0.0.8 192.0.0.192 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1
    239.255.255.255 240.0.0.1 255.255.255.255 168.63.129.16
    :: ::1 ::8.8.8.8 ::ffff:8.8.8.8 ::ffff:127.0.0.1 64:ff9b::8.8.8.8 64:ff9b::127.0.0.1 64:ff9b:1::1 100::1
    2001::1 2001:2::1 2001:20::1 2001:db8::1 2002:7f00:1:: 2002:808:808::1 3fff::1 4000::1 5f00::1 fc00::1 fd00:ec2::254
    fe80::1 fe80::1%eth0 fec0::1 ff02::1 ff0e::1
    """),
)
def test_what_is_not_public_is_denied_by_default(address: str) -> None:
    """Every range that is not global, and every address that carries another, names the setting that would open it."""
    assert "egress.allow" in (judge(address, STRICT) or "")


@pytest.mark.parametrize("address", _words("1.1.1.1 8.8.8.8 100.128.0.1 172.32.0.1 2606:4700::1111 2a00:1450:4001::1"))
def test_public_addresses_are_allowed_by_default(address: str) -> None:
    """Neighbours of the special ranges are public."""
    assert judge(address, STRICT) is None


@given(st.ip_addresses())
def test_nothing_passes_that_the_standard_library_knows_to_be_special(address: IPv4Address | IPv6Address) -> None:
    """The listed ranges hold all that `ipaddress` calls private, multicast, reserved or link-local."""
    if judge(address, STRICT) is None:
        assert address.is_global
        assert not any((address.is_multicast, address.is_reserved, address.is_link_local))
        assert judge(str(address), STRICT) is None


@given(st.ip_addresses())
def test_an_address_allowed_by_its_own_number_is_open_unless_it_carries_another(
    address: IPv4Address | IPv6Address,
) -> None:
    """The narrowest `allow` there can be opens everything but what is an IPv4 address in another coat."""
    if judge(address, allowing(str(address))) is not None:
        assert isinstance(address, IPv6Address)


def test_the_narrower_network_wins_and_deny_wins_a_tie() -> None:
    """`allow` and `deny` may be nested in each other."""
    policy = allowing("10.0.0.0/8", "10.1.2.0/24", deny=("10.1.0.0/16", "10.1.2.0/24", "8.8.8.0/24"))
    assert judge("10.2.0.1", policy) is None
    assert "egress.deny" in (judge("10.1.0.1", policy) or "")
    assert "egress.deny" in (judge("10.1.2.1", policy) or "")
    assert "egress.deny" in (judge("8.8.8.8", policy) or "")
    assert judge("8.8.4.4", policy) is None
    assert judge("10.1.2.3", allowing("10.1.2.0/24", deny=("10.0.0.0/8",))) is None


def test_one_wide_allow_opens_the_built_in_ranges() -> None:
    """`allow: [0.0.0.0/0]` means what it says, except for a cloud's metadata."""
    assert judge("10.0.0.1", allowing("0.0.0.0/0")) is None
    assert judge("fd00::1", allowing("::/0")) is None
    assert "metadata" in (judge("169.254.169.254", allowing("0.0.0.0/0", "169.254.0.0/16")) or "")
    assert judge("169.254.169.254", allowing("169.254.169.254/32")) is None


def test_an_address_that_carries_another_must_be_allowed_by_both() -> None:
    """A network with NAT64 may allow it, and still no private or denied address is reached through it."""
    nat64 = allowing("64:ff9b::/96")
    assert judge("64:ff9b::8.8.8.8", nat64) is None
    assert "10.0.0.1" in (judge("64:ff9b::10.0.0.1", nat64) or "")
    assert "egress.deny" in (judge("64:ff9b::8.8.8.8", allowing("64:ff9b::/96", deny=("8.0.0.0/8",))) or "")
    assert judge("::ffff:127.0.0.1", LOOPBACK)
    assert "metadata" in (judge("::ffff:169.254.169.254", allowing("::/0", "169.254.0.0/16")) or "")


@pytest.mark.parametrize(
    ("address", "inner"),
    [
        ("64:ff9b:1::10.0.0.1", "10.0.0.1"),
        ("64:ff9b:1:2:3:4:10.0.0.1", "10.0.0.1"),
        ("64:ff9b:1:a00:8:0:100:0", "0.0.0.0"),  # RFC 6052: 10.8.0.1 behind a /48
        ("64:ff9b:1:ff:a:0:800:0", "0.0.0.0"),  # 10.0.0.8 behind a /64
        ("2001:0:808:808:0:0:f5ff:fffe", "10.0.0.1"),
        ("2002:a00:1::1", "10.0.0.1"),
    ],
)
def test_a_private_address_is_found_in_every_coat(address: str, inner: str) -> None:
    """Also where all of IPv6 is allowed: local NAT64 of any prefix length, Teredo, 6to4."""
    assert f"address {inner} is" in (judge(address, allowing("::/0")) or "")


@pytest.mark.parametrize("name", _words("localhost LocalHost. shop.localhost metadata.google.internal instance-data"))
def test_names_that_mean_the_same_everywhere_are_judged_as_that(name: str) -> None:
    """Behind a proxy nothing else can be: the proxy looks names up."""
    assert "egress.allow" in (check_uri(f"https://{name}/", STRICT) or "")
    assert check_uri(f"https://{name}/", allowing("169.254.169.254/32", "::1/128")) is None
    assert check_uri(f"https://{name.rstrip('.')}.example/", STRICT) is None


def test_what_is_no_address_is_not_judged() -> None:
    """A caller that hands over a name has a bug, and learns of it."""
    with pytest.raises(ValueError, match="shop"):
        judge("shop.example.com", STRICT)
    assert judge(ip_address("8.8.8.8"), STRICT) is None
