"""The header `Link` as servers write it (RFC 8288)."""

import pytest

from notifier.features.registries.link_header import next_link

URL = "https://id.example.com/clients?page=1"
NEXT = "https://id.example.com/clients?page=2"


@pytest.mark.parametrize(
    "links",
    [
        '<?page=2>; rel="next"',
        f"<{NEXT}>;rel=next",
        f'<{NEXT}>; REL = "Next last"',
        f'</clients>; rel="first", <{NEXT}>; rel="next"',
        f'</a>; title="a, <b>; rel=next"; rel="prev",, <{NEXT}>; title="x;y" ; rel="next"',
        f'<{NEXT}>; rel="next"; rel="prev"',
    ],
)
def test_the_next_page_is_found(links: str) -> None:
    """Commas, semicolons and brackets in quotes separate nothing."""
    assert next_link(links, URL) == NEXT


def test_an_address_may_have_commas_and_semicolons() -> None:
    """Neither needs to be escaped in a URI."""
    assert next_link('</clients;v=1?fields=a,b>; rel="next"', URL) == "https://id.example.com/clients;v=1?fields=a,b"


@pytest.mark.parametrize(
    "links", ["", "<", f"<{NEXT}>", f'<{NEXT}>; rel="prev"; rel="next"', f'{NEXT}; rel="next"', f'<{NEXT}; rel="next"']
)
def test_without_a_link_it_is_the_last_page(links: str) -> None:
    """Also if the header is malformed."""
    assert next_link(links, URL) is None
