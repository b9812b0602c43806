"""The header `Link` (RFC 8288) of a list that comes in pages."""

import re
from urllib.parse import urljoin, urlsplit

from notifier.domain.client_rows import SourceFault

_LINK = re.compile(r'<([^>]*)>((?:\s*;\s*[^;,="\s]+(?:\s*=\s*(?:"[^"]*"|[^;,"]*))?)*)')
_REL = re.compile(r';\s*rel\s*=\s*(?:"([^"]*)"|([^;,"\s]*))', re.IGNORECASE)
_PORTS = {"http": 80, "https": 443}


def next_link(links: str, url: str) -> str | None:
    """The address of the page after `url`, None if that is the last. It may be of any server. Raises SourceFault."""
    for found in _LINK.finditer(links):
        rel = _REL.search(found[2])
        if rel is not None and "next" in (rel[1] or rel[2] or "").lower().split():
            try:
                return str(urljoin(url, found[1]))
            except ValueError:
                raise SourceFault("its next page (Link: rel=next) is no address") from None
    return None


def next_page(links: str, url: str) -> str | None:
    """The same, of the same server: our headers may hold a secret. Raises SourceFault if it is of another."""
    following = next_link(links, url)
    if following is not None and _origin(following) != _origin(url):
        raise SourceFault("its next page (Link: rel=next) is on another server; that is not followed")
    return following


def _origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:  # a port that is none
        return "", None, None
