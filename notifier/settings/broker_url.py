"""Checks the URLs in `queue.url`. No text shows any of a URL, since it may hold a password."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from urllib.parse import parse_qs, urlsplit

from notifier.model.printable import stray_character
from notifier.settings.values import names_host

_SEVERAL = re.compile(r"(?i)[,;|\s](sqlite|amqps?):")
_OPTIONS = ("auth", "heartbeat", "timeout", "name")
"""What aiormq reads of the query, besides `_OWN_TLS`. It ignores all else."""
_OWN_TLS = frozenset(("cafile", "capath", "cadata", "certfile", "keyfile", "no_verify_ssl"))
_LIKE_TLS = re.compile(r"(?i)ssl|tls|verify|cert|ca_?(file|path|data)|key_?file|fail_if_no|server_name|depth")


def broker_mistake(url: str, *, tls: bool) -> str | None:
    """Return what is wrong with one URL of `queue.url`, None if it can be used. `tls`: `queue.tls` is given."""
    if not url.strip():
        return "must not be empty; give sqlite:PATH or amqp://HOST, or leave it out for a file beside the configuration"
    if _SEVERAL.search(url.strip()):
        return "holds several URLs in one text; give a list: [amqp://A, amqp://B]"
    if (stray := stray_character(url)) is not None:
        return stray
    if not url.startswith(("amqp:", "amqps:")):
        return None
    _, _, rest = url.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if re.search("[,;]", authority.partition("@")[2] if "@" in authority else authority):
        return "names several hosts in one URL; give a list with a URL for each: [amqp://A, amqp://B]"
    user, _, _ = authority.rpartition("@")
    path = rest[len(authority) :].partition("?")[0]
    if "#" in rest or "[" in user or "@" in path or ("@" not in authority and "@" in rest):
        return (
            "has @, /, ?, # or [ in a user name, password or virtual host; write %40, %2F, %3F, %23 or %5B,"
            " or give the password in password_file"
        )
    if not names_host(url, "amqp", "amqps"):
        return "must have a host, and a port between 1 and 65535 if any, such as amqp://localhost:5672/"
    if re.search(r"\s", url):
        return "has a blank in it; write %20"
    if urlsplit(url).password == "":
        return "has an empty password; remove the colon, or give the password"
    return _wrong_option(parse_qs(urlsplit(url).query, keep_blank_values=True), tls=tls)


def _wrong_option(query: Iterable[str], *, tls: bool) -> str | None:
    """What is wrong with an option that has no effect: whoever wrote it may take the connection for encrypted."""
    for name in query:
        if name == "auth_mechanism":
            return "write auth instead of auth_mechanism"
        if name in _OPTIONS or (name in _OWN_TLS and not tls):
            continue
        if name in _OWN_TLS or _LIKE_TLS.search(name):
            return f"the option {_shown(name)} has no effect; for TLS write amqps://, and give files in queue.tls"
        near = get_close_matches(name, _OPTIONS, 1)
        hint = f"did you mean {near[0]}?" if near else f"use one of {', '.join(_OPTIONS)}, or remove it"
        return f"the option {_shown(name)} has no effect; {hint}"
    return None


def _shown(name: str) -> str:
    """The name of an option. What is none may be the rest of a password."""
    return name if re.fullmatch(r"[A-Za-z_.]{1,40}", name) else "in the query"
