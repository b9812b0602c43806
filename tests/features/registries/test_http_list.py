"""Lists of clients over HTTP: their shapes, pages, and the header Link."""

import json
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from notifier.features.registries.page_requests import EndlessListError, PageLimit, ShiftingPages, find_next_url
from notifier.model.errors import SourceFault
from tests.features.registries.list_server import page, reader, serving

# ── A list of client metadata at an address: its shapes and pages ────────────────────────────────────────────────


HOOK = "https://shop.example.com/hook"
SHOP = {"client_id": "shop", "backchannel_logout_uri": HOOK}
RFC_7591: dict[str, Any] = {
    **SHOP,
    "frontchannel_logout_uri": None,
    "subject_type": "",
    "client_secret": "hunter2",
    "client_id_issued_at": 2893256800,
    "registration_access_token": "hunter2",
    "registration_client_uri": "https://id.example.com/register/shop",
    "post_logout_redirect_uris": ["https://shop.example.com/callback"],
    "token_endpoint_auth_method": "client_secret_basic",
    "jwks": {"keys": []},
}


def _typed(text: str, content_type: str) -> Any:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=text.encode(), headers={"Content-Type": content_type})

    return answer


@pytest.mark.parametrize(
    ("text", "content_type", "rows"),
    [
        (json.dumps([SHOP]), "application/json", [SHOP]),
        (json.dumps({"clients": [SHOP], "total": 1}), "application/json; charset=utf-8", [SHOP]),
        ("\ufeff" + json.dumps([SHOP]), "text/plain", [SHOP]),
        (json.dumps([RFC_7591]), "application/json", [SHOP]),
        ('{"clients": []}', "application/json", []),
    ],
)
async def test_each_shape_is_read(text: str, content_type: str, rows: list[Any]) -> None:
    """JSON, whatever its type is called; secrets and other metadata are dropped."""
    async with serving(_typed(text, content_type)) as url:
        answer = await reader("http", url=url).read(None)
    assert list(answer.rows) == rows
    assert answer.faults == ()


@pytest.mark.parametrize(
    ("text", "content_type", "fault"),
    [
        ("clients: []", "application/yaml", "is not JSON; YAML is not read: serve the list as JSON$"),
        ('{"clients": {"shop": {}}}', "application/json", "is not a list of clients"),
        ("<html></html>", "text/plain", "is not JSON"),
        ("", "application/json", r"is empty; it must be \[\]"),
    ],
)
async def test_an_invalid_list_is_a_fault(text: str, content_type: str, fault: str) -> None:
    """It names the place where it can."""
    async with serving(_typed(text, content_type)) as url:
        with pytest.raises(SourceFault, match=fault):
            await reader("http", url=url).read(None)


@pytest.mark.parametrize(
    "form", ['<?page={n}>; rel="next"', "</?page={n}>; rel=next", '<{url}/?page={n}>; title="a, b"; rel="last next"']
)
async def test_pages_are_followed(form: str) -> None:
    """Relative or absolute."""
    seen: list[int] = []
    address: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append(nth := int(request.query.get("page", "0")))
        link = '<https://elsewhere.example.com/>; rel="prev"'
        if nth < 2:
            link += ", " + form.format(n=nth + 1, url=address[0])
        return page({"clients": [{"client_id": f"c{nth}"}]}, Link=link)

    async with serving(answer) as url:
        address.append(url)
        first = await (http := reader("http", url=f"{url}/")).read(None)
        assert await http.read(first) is first
    assert [row["client_id"] for row in first.rows] == ["c0", "c1", "c2"]
    assert seen == [0, 1, 2] * 2


@pytest.mark.parametrize(
    ("link", "fault"),
    [
        ("<https://127.0.0.1:1/>; rel=next", "on another server"),
        ("<//127.0.0.1:1/x>; rel=next", "on another server"),
        ("<http://[>; rel=next", "is not an address"),
        ("<http://127.0.0.1:x/>; rel=next", "on another server"),
        ("<?page=1>; rel=next", "a page comes again"),
    ],
)
async def test_pages_lead_neither_elsewhere_nor_in_circles(link: str, fault: str) -> None:
    """Our headers may hold a secret."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return page([SHOP], Link=link)

    async with serving(answer) as url:
        with pytest.raises(SourceFault, match=fault):
            await reader("http", url=f"{url}/?page=0").read(None)


async def test_a_large_list_is_read_in_parts() -> None:
    """3,000 clients in one document, with one wrong client."""
    clients: list[Any] = [
        {**RFC_7591, "client_id": f"client-{nth:05}", "client_name": "Bücher"} for nth in range(3_000)
    ]
    clients[2_000]["backchannel_logout_uri"] = "/hook"
    documents: tuple[Any, ...] = (clients, {"next": None, "clients": clients, "more": [], "most": {}})
    for document in documents:
        async with serving(_typed(json.dumps(document, ensure_ascii=False, indent=1), "application/json")) as url:
            answer = await reader("http", url=url).read(None)
        assert len(answer.rows) == 2_999
        assert [fault.path for fault in answer.faults] == ["client-02000"]
    for cut in ('[{"client_id": "a"}' + " " * 300_000, "[1,2]" + " " * 300_000 + "3", '{"a"' + " " * 300_000 + "}"):
        async with serving(_typed(cut, "application/json")) as url:
            with pytest.raises(SourceFault, match="is not JSON"):
                await reader("http", url=url).read(None)


# ── The header `Link` as servers write it (RFC 8288) ──────────────────────────────────────────────────────────────


PAGE_URL = "https://id.example.com/clients?page=1"
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
    assert find_next_url(links, PAGE_URL) == NEXT


def test_an_address_may_have_commas_and_semicolons() -> None:
    """Neither needs to be escaped in a URI."""
    assert (
        find_next_url('</clients;v=1?fields=a,b>; rel="next"', PAGE_URL)
        == "https://id.example.com/clients;v=1?fields=a,b"
    )


@pytest.mark.parametrize(
    "links", ["", "<", f"<{NEXT}>", f'<{NEXT}>; rel="prev"; rel="next"', f'{NEXT}; rel="next"', f'<{NEXT}; rel="next"']
)
def test_without_a_link_it_is_the_last_page(links: str) -> None:
    """Also if the header is malformed."""
    assert find_next_url(links, PAGE_URL) is None


# ── A list that is read by pages while it changes ─────────────────────────────────────────────────────────────────


SIZE = 4
NAMES = [f"{nth:02}" for nth in range(40)]


@given(
    st.sets(st.sampled_from(NAMES), min_size=1),
    st.lists(st.tuples(st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES))), max_size=12),
)
def test_clients_that_stay_in_a_shifting_list_are_read(
    listed: set[str], changes: list[tuple[set[str], set[str]]]
) -> None:
    """Whatever is deleted and added between two pages."""
    pages, found, staying, asked = ShiftingPages(SIZE), set[str](), set(listed), 0
    while pages.first is not None:
        page = sorted(listed)[pages.first : pages.first + SIZE]
        if pages.accept(page):
            found.update(page)
        if changes:
            gone, added = changes.pop()
            if len(listed - gone | added) > 0:
                listed = listed - gone | added
                staying -= gone
        asked += 1
    assert staying <= found


def test_an_endless_list_is_a_fault() -> None:
    """The same page for each offset."""
    pages = ShiftingPages(SIZE)
    for _ in range(20):
        pages.accept(NAMES[:SIZE])
    with pytest.raises(EndlessListError, match="20 pages in a row"):
        pages.accept(NAMES[:SIZE])


def test_a_reading_has_a_limit_of_pages() -> None:
    """However many clients its server makes up."""
    limit = PageLimit()
    for nth in range(9_999):
        limit.on_next_page(nth + 1)
    with pytest.raises(EndlessListError, match=r"more than 10,000 pages; if .* put more clients on each page"):
        limit.on_next_page(10_000)


def test_pages_without_a_new_client_count_in_a_row() -> None:
    """A server may repeat some after clients were removed."""
    limit = PageLimit()
    for nth in range(200):
        limit.on_next_page(1 + nth // 20)


def test_pages_of_a_server_have_a_limit_for_all() -> None:
    """Their names are kept during the reading, and before the rows are counted."""
    pages = ShiftingPages(100)
    names = [f"{nth:09000}" for nth in range(2000)]
    assert pages.accept(names[:1800])
    with pytest.raises(SourceFault, match="its list has more than 16 MiB"):
        pages.accept(names[1799:])
