"""Decides where a logout token may be sent: which URIs are well formed (B3, B5, B6), and which addresses are allowed.

A host is checked twice: here if it is a literal address, and by the transport at the address that it connects to.
`egress.allow` and `egress.deny` override the built-in ranges. The narrowest network decides; on a tie, deny does. An
address that embeds another (IPv4-mapped, local NAT64, 6to4, Teredo, ISATAP) must be allowed in both forms. An address
in the well-known prefix of NAT64 (RFC 6052) is judged as the IPv4 address in it. A cloud's metadata address needs an
`allow` of exactly that address, so that allowing a private range does not expose credentials. A proxy resolves names,
so behind a proxy only the name is checked: as an address if it is one in an unusual form (`127.1`), and as loopback or
metadata if it has that meaning on every machine.
The ranges are listed here because `ipaddress.is_global` differs between Python versions: it allows NAT64 and 6to4.
"""

import contextlib
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple

from notifier.model.client import EgressPolicy
from notifier.model.printable import stray_character
from notifier.model.shared_resources import shared_cache

MAX_URI_LENGTH = 4096  # characters of a URI from outside
Address = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

# IANA special-purpose registries (RFC 6890 and later), and ranges that were never assigned.
_IPV4_RANGES = tuple(
    (IPv4Network(network), kind)
    for network, kind in (
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved by the IETF"),
        ("192.0.2.0/24", "documentation"),
        ("192.31.196.0/24", "AS112"),
        ("192.52.193.0/24", "AMT"),
        ("192.88.99.0/24", "6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "AS112"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
_IPV6_RANGES = tuple(
    (IPv6Network(network), kind)
    for network, kind in (
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::/96", "IPv4-compatible"),
        ("::ffff:0:0/96", "IPv4-mapped"),
        ("::ffff:0:0:0/96", "IPv4-translated"),
        ("64:ff9b:1::/48", "NAT64"),
        ("2001::/32", "Teredo"),
        ("2001::/23", "reserved by the IETF"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),
        ("2620:4f:8000::/48", "AS112"),
        ("3fff::/20", "documentation"),
        ("fc00::/7", "unique local"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    )
)
_GLOBAL_UNICAST = IPv6Network("2000::/3")  # all that IANA has assigned; the rest of IPv6 is reserved

_METADATA = frozenset(
    ip_address(address)
    for address in (
        "169.254.169.254",  # AWS, Azure, Google, Oracle and most others
        "169.254.170.2",  # AWS, credentials of a container
        "169.254.170.23",  # AWS, identities of a pod
        "169.254.0.23",  # Tencent
        "169.254.42.42",  # Scaleway
        "fd00:ec2::23",
        "fd00:ec2::254",
        "fd20:ce::254",  # Google
        "fd00:42::42",  # Scaleway
        "fe80::a9fe:a9fe",  # OpenStack
        "100.100.100.200",  # Alibaba
        "192.0.0.192",  # Oracle
        "168.63.129.16",  # Azure: a public address that is the host
    )
)

# With a /96 prefix, as the well-known one, the last 32 bits are the IPv4 address. A local prefix (RFC 8215) may be
# shorter: then the IPv4 address is further left, and the last 24 bits are zeros (RFC 6052 §2.2).
_WELL_KNOWN_NAT64, _LOCAL_NAT64 = IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48")

# These end with an IPv4 address, too: IPv4-compatible and IPv4-translated addresses (RFC 4291, RFC 7915), and ISATAP
# addresses in any network, recognised by the 32 bits before the IPv4 address (RFC 5214 §6.1).
_IPV4_LAST = tuple(IPv6Network(network) for network in ("::/96", "::ffff:0:0:0/96"))
_ISATAP = frozenset({0x0000_5EFE, 0x0200_5EFE})
_PLAIN = frozenset(map(IPv6Address, ("::", "::1")))

# Names that mean the same address on every machine (RFC 6761 §6.3; /etc/hosts of Debian and Fedora) or in every network
# of a cloud.
_LOCAL = frozenset({
    "localhost", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback",
    "localhost.localdomain", "localhost4.localdomain4", "localhost6.localdomain6",
})  # fmt: skip
_LOOPBACK = (ip_address("127.0.0.1"), ip_address("::1"))
_METADATA_NAMES = frozenset({
    "metadata.google.internal", "metadata.goog",
    "instance-data", "instance-data.ec2.internal", "metadata.azure.internal",
})  # fmt: skip
_METADATA_OF_NAMES = ip_address("169.254.169.254")

_NO_URI_CHARACTER = re.compile(r"[^!-\[\]-~]")  # controls, space, backslash, non-ASCII
_URI = re.compile(r"(https?)://([^/?]*)", re.IGNORECASE)
_TWO_URIS = re.compile(r"https?://(?:[^?]*[,;|#]|[^/?]*|.*\s)https?://", re.IGNORECASE | re.DOTALL)
_AUTHORITY = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]+)(?::([0-9]{1,5}))?")
_LABEL = r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)"
HTTP_SETTING = "egress.allow_http"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")


class _Target(NamedTuple):
    """The target of a well-formed URI: the scheme, and the addresses that the host stands for without a look-up.

    `disguised` is True if the host is an IPv4 address in an unusual form.
    """

    secure: bool
    addresses: tuple[Address, ...]
    disguised: bool


def find_uri_issue(uri: str) -> str | None:
    """Return what is malformed in a `backchannel_logout_uri`; None if it is well formed (B3, B4, B5)."""
    target = _parse(uri)
    return target if isinstance(target, str) else None


@shared_cache(8192)  # called twice for each attempt at 10 µs; the result never changes
def check_uri(uri: str, policy: EgressPolicy) -> str | None:
    """Return why no request may go to `uri`, and the setting that would allow it; None if a request may.

    The addresses of a name are unknown here: `check_address` checks them later. Behind a proxy they stay unknown.
    """
    target = _parse(uri)
    if isinstance(target, str):
        return target
    if not target.secure and not policy.allow_http:
        return f"is http; to allow it, set {HTTP_SETTING}"
    problems = [check_address(address, policy) for address in target.addresses]
    if problems and None not in problems:  # no address of the host is allowed
        return problems[0]
    return f"must write its address as {target.addresses[0]}" if target.disguised else None


def check_address(address: str | Address, policy: EgressPolicy) -> str | None:
    """Return why no connection may go to `address`, and which setting would allow it; None if it may.

    Raises ValueError if `address` is not an IP address.
    """
    if isinstance(address, str):
        address = ip_address(address)
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        address = IPv6Address(int(address))  # fe80::1%eth0 is not equal to fe80::1, but the same address
    if (problem := _check_address_as_written(address, policy)) is not None:
        return problem
    embedded = _extract_ipv4(address)
    return None if embedded is None else check_address(embedded, policy)


def _check_address_as_written(address: Address, policy: EgressPolicy) -> str | None:
    """Return why no connection may go to this address, without regard to an address that it embeds."""
    allowed_length = _longest_prefix(address, policy.allow)
    denied_length = _longest_prefix(address, policy.deny)
    if denied_length >= 0 and denied_length >= allowed_length:
        return f"address {address} is denied by egress.deny"
    if address in _METADATA and allowed_length < address.max_prefixlen:
        return f"address {address} is a cloud's metadata service, which needs an egress.allow of exactly that address"
    if allowed_length >= 0:
        return None
    kind = _find_special_kind(address)
    return None if kind is None else f"address {address} is {kind}, not public; to allow it, add it to egress.allow"


def _longest_prefix(address: Address, networks: tuple[IPNetwork, ...]) -> int:
    """Return the prefix length of the narrowest network that contains the address; -1 if none does."""
    return max([network.prefixlen for network in networks if address in network], default=-1) if networks else -1


def _find_special_kind(address: Address) -> str | None:
    """Return the kind of special range that contains the address, None if it is public."""
    for network, kind in _IPV4_RANGES if address.version == 4 else _IPV6_RANGES:
        if address in network:
            return kind
    if address.version == 4 or address in _GLOBAL_UNICAST or address in _WELL_KNOWN_NAT64:
        return None
    return "reserved"


def _extract_ipv4(address: Address) -> IPv4Address | None:
    """Return the IPv4 address that packets to this IPv6 address reach; None if there is none."""
    if isinstance(address, IPv4Address):
        return None
    number = int(address)
    last_bits = number & 0xFFFF_FFFF
    if address in _WELL_KNOWN_NAT64:
        return IPv4Address(last_bits)
    if address in _LOCAL_NAT64:
        is_last = last_bits & 0xFF_FFFF != 0
        return IPv4Address(last_bits if is_last else 0)  # an unknown position counts as 0.0.0.0, which is denied
    is_isatap = (number >> 32) & 0xFFFF_FFFF in _ISATAP
    if is_isatap or any(address in network for network in _IPV4_LAST):
        return None if address in _PLAIN else IPv4Address(last_bits)
    teredo_client = None if address.teredo is None else address.teredo[1]
    return address.ipv4_mapped or address.sixtofour or teredo_client


def _parse(uri: str) -> _Target | str:
    """Return the target of the URI; if it is malformed, a text with the problem."""
    if _TWO_URIS.match(uri) is not None:
        return "has two addresses; write one, and the other for a client that follows this one (notifier.follows)"
    if _NO_URI_CHARACTER.search(uri) is not None:
        text = "has a character that no URI may have: percent-encode it, and write the host in punycode"
        return stray_character(uri) or text
    if "#" in uri:
        return "must not have a fragment (#…)"
    if (parts := _URI.match(uri)) is None:
        return stray_character(uri) or "must be an absolute URI that begins with https://"
    scheme, authority = parts.groups()
    if "@" in authority:
        return "must not have a user name or password before the host"
    if (host_and_port := _AUTHORITY.fullmatch(authority)) is None:
        return "must have a host, and a port that is a number if any"
    host, port = host_and_port.groups()
    if port is not None and not 0 < int(port) < 65_536:
        return "must have a port between 1 and 65535"
    address, secure = address_of(host), scheme.lower() == "https"
    if address is None:
        return _find_host_issue(host) or _Target(secure=secure, addresses=_addresses_of(host), disguised=False)
    disguised = address.version == 4 and str(address) != host
    return _Target(secure=secure, addresses=(address,), disguised=disguised)


def _addresses_of(name: str) -> tuple[Address, ...]:
    """Return the addresses of a name that means the same on every machine, such as `localhost`; none for others."""
    name = name.lower().removesuffix(".")
    if name in _LOCAL or name.endswith(".localhost"):
        return _LOOPBACK
    return (_METADATA_OF_NAMES,) if name in _METADATA_NAMES else ()


def _find_host_issue(host: str) -> str | None:
    if host.startswith("["):
        return "must have an IPv6 address without a zone between the brackets"
    if len(host.removesuffix(".")) > 253 or _NAME.fullmatch(host) is None:
        return "must have a valid host name"
    if _ends_in_number(host):
        return "has a host that ends in a number and yet is no IPv4 address"
    return None


def _ends_in_number(host: str) -> bool:
    return _NUMBER.fullmatch(host.removesuffix(".").rsplit(".", 1)[-1]) is not None


def address_of(host: str) -> Address | None:
    """Return the IP address that a host stands for, also in the forms of inet_aton (`127.1`); None if it has none."""
    if host.startswith("["):
        try:
            return None if "%" in host else IPv6Address(host[1:-1])
        except ValueError:
            return None
    if not _ends_in_number(host):
        return None
    with contextlib.suppress(ValueError):
        return IPv4Address(host)  # the usual form, and the fastest check
    parts = host.removesuffix(".").split(".")
    numbers = [_parse_inet_number(part) for part in parts]
    if len(parts) > 4 or any(number is None for number in numbers):
        return None
    *leading, last = (number for number in numbers if number is not None)
    if any(number > 255 for number in leading) or last >= 256 ** (4 - len(leading)):
        return None
    return IPv4Address(sum(number << (24 - 8 * index) for index, number in enumerate(leading)) + last)


def _parse_inet_number(part: str) -> int | None:
    """Parse one part of an inet_aton address: decimal, `0x` hexadecimal or `0` octal. None if it is invalid."""
    if _NUMBER.fullmatch(part) is None or len(part) > 32:
        return None
    try:
        if part[:2] in ("0x", "0X"):
            return int(part[2:] or "0", 16)
        return int(part, 8 if part.startswith("0") else 10)
    except ValueError:  # an 8 or 9 in an octal number
        return None
