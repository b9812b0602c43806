"""Every egress case that is tried without a client's help: URIs as written, addresses that a name leads to, settings.

`settings` are what an operator writes under `egress`, and after a bar under the client's own.
"""

from dataclasses import dataclass
from enum import StrEnum

import yaml

from notifier.model.client import EgressPolicy
from notifier.settings.policies import EgressSettings, overridden


class Verdict(StrEnum):
    """What a case comes to."""

    ALLOWED = "allowed"
    DENIED = "denied"  # and the text names the setting that would allow it
    MALFORMED = "malformed"  # no setting allows it


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is tried, under which settings, and what must come of it."""

    tried: str
    verdict: Verdict
    settings: str = ""


def policy(settings: str) -> EgressPolicy:
    """The policy of a client under these settings, read as from the file."""
    policy = EgressPolicy()
    for section in settings.split("|"):
        policy = overridden(policy, EgressSettings.model_validate(yaml.safe_load(f"{{{section}}}")))
    return policy


def _cases(verdict: Verdict, settings: str, tried: str) -> list[Case]:
    return [Case(tried=each, verdict=verdict, settings=settings) for each in tried.split()]


LOOPBACK = "allow: [127.0.0.0/8, '::1/128']"

URIS = {
    "Public": _cases(
        Verdict.ALLOWED,
        "",
        """https://shop.example.com/logout?a=%2F https://shop.example.com:8443/ HTTPS://Shop.Example.COM./
        https://shop.example.com https://shop.example.com?tenant=1 https://under_score.example/ https://1a.example/
        https://shop.example.com:8443/logout?tenant=1&next=%2F%C3%A4&x=a+b https://xn--bcher-kva.example/
        https://localhost.example/ https://shop.localhost.example/ https://metadata.google.internal.example/
        https://instance-data.example/ https://8.8.8.8/ https://[2606:4700::1111]/ https://[2606:4700::1111]:443/""",
    ),
    "http": [
        *_cases(Verdict.DENIED, "", "http://shop.example.com/ http://8.8.8.8/"),
        *_cases(Verdict.ALLOWED, "allow_http: true", "http://shop.example.com/"),
        *_cases(Verdict.DENIED, "allow_http: true", "http://10.0.0.1/"),
        *_cases(Verdict.ALLOWED, "allow_http: false | allow_http: true", "http://shop.example.com/"),
        *_cases(Verdict.DENIED, "allow_http: true | allow_http: false", "http://shop.example.com/"),
    ],
    "Spellings of 127.0.0.1": _cases(
        Verdict.DENIED,
        "",
        """https://127.0.0.1/ https://127.0.0.1./ https://127.1/ https://127.0.1/ https://2130706433/ https://0x7f000001/
        https://0X7F.1/ https://0177.0.0.1/ https://017700000001/ https://0x7f.0.0.0x1/ https://0000000177.0.0.1/
        https://[::1]/ https://[0:0:0:0:0:0:0:1]/ https://[::ffff:127.0.0.1]/ https://[::ffff:7f00:1]/
        https://[64:ff9b::127.0.0.1]/ https://[64:ff9b:1::7f00:1]/ https://[2002:7f00:1::]/ https://[::127.0.0.1]/
        https://[2001:0:808:808::80ff:fffe]/ https://localhost/ https://LOCALHOST./ https://shop.localhost:8443/
        https://[::ffff:0:127.0.0.1]/ https://[2600:1::5efe:7f00:1]/ https://localhost.localdomain/ https://ip6-localhost/
        https://ip6-loopback/ https://localhost4/ https://localhost6/ https://localhost4.localdomain4/
        https://localhost6.localdomain6/ https://LOCALHOST6.localdomain6./""",
    ),
    "Spellings of an address that is allowed": [
        *_cases(
            Verdict.MALFORMED,
            LOOPBACK,
            "https://127.1/ https://2130706433/ https://0x7f000001/ https://0177.0.0.1/ https://127.0.0.1./",
        ),
        *_cases(Verdict.MALFORMED, "", "https://010.8.8.8/ https://134744072/"),
        *_cases(
            Verdict.ALLOWED, LOOPBACK, "https://127.0.0.1/ https://[::1]/ https://[0:0:0:0:0:0:0:1]/ https://localhost/"
        ),
    ],
    "Other addresses that are not public": _cases(
        Verdict.DENIED,
        "",
        """https://0/ https://0.0.0.0/ https://[::]/ https://10.1/ https://167772161/ https://012.0.0.1/ https://0xa.1/
        https://172.16.0.1/ https://192.168.257/ https://100.64.0.1/ https://169.254.1.1/ https://224.0.0.1/
        https://255.255.255.255/ https://[fc00::1]/ https://[fe80::1]/ https://[fec0::1]/ https://[ff02::1]/
        https://[2001:db8::1]/ https://[::ffff:8.8.8.8]/ https://[64:ff9b::10.0.0.1]/ https://[2002:808:808::1]/""",
    ),
    "Metadata of clouds": [
        *_cases(
            Verdict.DENIED,
            "",
            """https://169.254.169.254/ https://2852039166/ https://0xa9fea9fe/ https://0251.0376.0251.0376/
            https://[::ffff:a9fe:a9fe]/ https://[fd00:ec2::254]/ https://100.100.100.200/ https://168.63.129.16/
            https://metadata.google.internal/ https://instance-data/""",
        ),
        *_cases(
            Verdict.DENIED,
            "allow: [0.0.0.0/0, '::/0']",
            "https://169.254.169.254/ https://[::ffff:169.254.169.254]/ https://metadata.google.internal/",
        ),
        *_cases(
            Verdict.ALLOWED, "allow: [169.254.169.254/32]", "https://169.254.169.254/ https://metadata.google.internal/"
        ),
    ],
    "User names, ports, fragments, zones, and what else no setting allows": _cases(
        Verdict.MALFORMED,
        LOOPBACK,
        """https://user@shop.example.com/ https://user:password@shop.example.com/ https://8.8.8.8@127.0.0.1/
        https://127.0.0.1@shop.example.com/ https://@shop.example.com/ https://shop.example.com\\@127.0.0.1/
        https://shop.example.com:0/ https://shop.example.com:65536/ https://shop.example.com:/
        https://shop.example.com:80:80/ https://shop.example.com:+443/ https://shop.example.com/#x
        https://127.0.0.1#@shop.example.com/ https://[fe80::1%25eth0]/ https://[fe80::1%eth0]/ https://[::1%25lo]/
        https://[::1 https://::1/ https://[127.0.0.1]/ https://127.0.0.1.5/ https://256.0.0.1/ https://127.0.0.09/
        https://0x100000000/ https://%31%32%37.0.0.1/ https://①②⑦.0.0.1/ https://127。0。0。1/ https:///shop.example.com/
        https:shop.example.com //shop.example.com/ ftp://shop.example.com/ file:///etc/passwd gopher://127.0.0.1/
        /logout shop.example.com/logout https://:443/ https://shop.example.com/# https://shop.example.com:https/
        https://1.2.3.4.5/ https://099.0.0.1/ https://shop.example.123/ https://[v1.x]/ https://bücher.example/
        https://shop..example/ https://-shop.example/"""
        f" https://{'a' * 64}.example/ https://{'a.' * 130}example/",
    ),
}

_RANGES = """0.0.0.1 10.0.0.1 100.64.0.1 127.0.0.1 169.254.1.1 172.16.0.1 192.0.0.8 192.0.2.1 192.88.99.1 192.168.0.1
    198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 240.0.0.1 255.255.255.255 :: ::1 ::ffff:8.8.8.8 ::ffff:10.0.0.1
    64:ff9b::169.254.169.254 64:ff9b::10.0.0.1 64:ff9b:1::10.0.0.1 64:ff9b:1::8.8.8.8 64:ff9b:2::1 100::1 2001::1
    2001:db8::1 2002:a00:1:: 3fff::1 4000::1
    fc00::1 fe80::1 fe80::1%lo fec0::1 ff02::1 169.254.169.254 fd00:ec2::254 168.63.129.16 0.0.0.0 100.127.255.255
    172.31.255.255 192.0.0.192 239.255.255.255 ::8.8.8.8 ::ffff:127.0.0.1 64:ff9b::127.0.0.1 64:ff9b:1::1 2001:2::1
    2001:20::1 2002:7f00:1:: 2002:808:808::1 5f00::1 ff0e::1"""

ADDRESSES = {
    "A name that leads to": _cases(Verdict.DENIED, "", _RANGES),
    "A name that leads to a public address": _cases(
        Verdict.ALLOWED,
        "",
        "1.1.1.1 8.8.8.8 100.128.0.1 172.32.0.1 2606:4700::1111 2a00:1450:4001::1 64:ff9b::5db8:d822",
    ),
    "Settings": [
        *_cases(Verdict.ALLOWED, "allow: [10.0.0.0/8]", "10.0.0.1 64:ff9b::10.0.0.1"),
        *_cases(Verdict.DENIED, "allow: [10.0.0.0/8]", "172.16.0.1 ::ffff:10.0.0.1 64:ff9b::172.16.0.1"),
        *_cases(Verdict.DENIED, "deny: [8.8.8.0/24]", "8.8.8.8 64:ff9b::8.8.8.8"),
        *_cases(Verdict.DENIED, "deny: ['64:ff9b::/96']", "64:ff9b::8.8.8.8"),
        *_cases(Verdict.DENIED, "allow: [0.0.0.0/0, '::/0']", "64:ff9b::169.254.169.254 64:ff9b::6464:64c8"),
        *_cases(Verdict.DENIED, "allow: [10.0.0.0/8], deny: [10.1.0.0/16]", "10.1.0.1"),
        *_cases(Verdict.ALLOWED, "allow: [10.1.2.0/24], deny: [10.1.0.0/16]", "10.1.2.1"),
        *_cases(Verdict.DENIED, "allow: [10.1.0.0/16], deny: [10.1.0.0/16]", "10.1.0.1"),
        *_cases(Verdict.DENIED, "allow: ['64:ff9b::/96']", "64:ff9b::10.0.0.1"),
        *_cases(Verdict.DENIED, "allow: ['64:ff9b::/96'], deny: [8.0.0.0/8]", "64:ff9b::8.8.8.8"),
        *_cases(
            Verdict.DENIED,
            "allow: ['::/0']",
            """2002:a00:1:: 64:ff9b:1:a00:8:0:100:0 64:ff9b:1:ff:a:0:800:0 64:ff9b:1::10.0.0.1 64:ff9b:1:2:3:4:10.0.0.1
            2001:0:808:808:0:0:f5ff:fffe ::ffff:127.0.0.1 ::10.0.0.1 ::ffff:0:10.0.0.1 2600:1::5efe:a00:1
            2600:1::200:5efe:a00:1 fe80::a9fe:a9fe fd00:42::42""",
        ),
        *_cases(Verdict.ALLOWED, "allow: ['::/0']", ":: ::1 ::8.8.8.8 fd00::1 2600:1::5efe:808:808"),
        *_cases(Verdict.ALLOWED, "allow: [0.0.0.0/0]", "10.0.0.1"),
        *_cases(Verdict.DENIED, "allow: [0.0.0.0/0, '::/0', 169.254.0.0/16]", "169.254.169.254 ::ffff:169.254.169.254"),
        *_cases(Verdict.ALLOWED, "allow: [10.1.2.0/24], deny: [10.0.0.0/8]", "10.1.2.3"),
        *_cases(Verdict.ALLOWED, "allow: [] | allow: [10.0.0.0/8]", "10.0.0.1"),
        *_cases(Verdict.DENIED, "allow: [10.0.0.0/8] | allow: []", "10.0.0.1"),
        *_cases(Verdict.DENIED, "allow: [10.0.0.0/8] | allow: [172.16.0.0/12]", "10.0.0.1"),
        *_cases(Verdict.DENIED, "deny: [8.8.8.0/24] | allow: [10.0.0.0/8]", "8.8.8.8"),
        *_cases(Verdict.ALLOWED, "deny: [8.8.8.0/24] | deny: []", "8.8.8.8"),
    ],
}
