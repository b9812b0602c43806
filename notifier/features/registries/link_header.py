"""Reads the header `Link` (RFC 8288) of a list that comes in pages."""

from collections.abc import Iterator
from urllib.parse import urljoin, urlsplit

from notifier.model.errors import SourceFault

LONGEST = 65_536  # characters of all headers together
_CLOSED_BY = {"<": ">", '"': '"'}
_PORTS = {"http": 80, "https": 443}


def next_link(links: str, url: str) -> str | None:
    """Return the address of the page after `url`, None if that is the last; of any server. Raises SourceFault."""
    if len(links) > LONGEST:
        raise SourceFault(f"its headers Link are longer than {LONGEST // 1024} KiB")
    for target, *parameters in _links(links):
        if target[:1] == "<" and target[-1:] == ">" and "next" in _relations(parameters):
            try:
                return str(urljoin(url, target[1:-1]))
            except ValueError:
                raise SourceFault("its next page (Link: rel=next) is no address") from None
    return None


def next_page(links: str, url: str) -> str | None:
    """Return the same, but of the same server only, since our headers may hold a secret. Raises SourceFault."""
    following = next_link(links, url)
    if following is not None and _origin(following) != _origin(url):
        raise SourceFault("its next page (Link: rel=next) is on another server; that is not followed")
    return following


def _links(links: str) -> Iterator[list[str]]:
    """Each link's target, in its brackets, and parameters. No character is looked at twice."""
    parts: list[str] = []
    begin, closed_by = 0, ""
    for at, character in enumerate(links):
        if closed_by:
            closed_by = "" if character == closed_by else closed_by
        elif character in _CLOSED_BY:
            closed_by = _CLOSED_BY[character]
        elif character in ",;":
            parts.append(links[begin:at].strip())
            begin = at + 1
            if character == ",":
                yield parts
                parts = []
    yield [*parts, links[begin:].strip()]


def _relations(parameters: list[str]) -> list[str]:
    """The first `rel` counts (RFC 8288 §3.3)."""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "rel":
            return value.strip().strip('"').lower().split()
    return []


def _origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:  # a port that is none
        return "", None, None
