"""The document and the headers of a front-channel page, as they leave us."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from notifier.features.browsers.front_channel_page import FRAMES, FrontChannelPage, PageRules
from notifier.model.front_channel import AskedClient, PagePlan, UnaskedClient

OP = "https://login.example.com"
RULES = PageRules(path="/connect/notify", origins=(OP, "https://upstream.example.org"))
PAGE = FrontChannelPage()
REPORT = "/connect/notify/front-channel/gAAAA"


def asked(client_id: str, uri: str = "https://billing.example.net/out", name: str = "") -> AskedClient:
    return AskedClient(client_id=client_id, name=name or client_id, uri=uri)


class _Reader(HTMLParser):
    """Elements with their attributes, and the text of scripts and styles, as a browser would read them."""

    def __init__(self, document: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._within = ""
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._within = dict(attrs).get("type") or tag

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        self.texts[self._within] = self.texts.get(self._within, "") + data

    def frames(self) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == "iframe"]


def plan_of(document: str) -> Any:
    return json.loads(_Reader(document).texts["application/json"])


def hash_of(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_the_policy_names_the_very_script_and_style() -> None:
    """By their hashes, and nothing else may run; the frames may be of any https origin, since clients redirect."""
    headers = PAGE.headers(RULES.origins, [asked("billing")])
    read = _Reader(PAGE.document(PagePlan(asked=(asked("billing"),)), RULES, REPORT))
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert policy == {
        "default-src": "'none'",
        "script-src": hash_of(read.texts["script"]),
        "style-src": hash_of(read.texts["style"]),
        "frame-src": "https:",
        "connect-src": "'self' https:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": f"{OP} https://upstream.example.org",
    }
    assert {name: headers[name] for name in headers if name != "Content-Security-Policy"} == {
        "Cache-Control": "no-store",
        "Referrer-Policy": "strict-origin",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "cross-origin",
        "X-Robots-Tag": "noindex",
    }
    assert sum(len(name) + len(value) + 4 for name, value in headers.items()) < 700


def test_nobody_may_frame_what_is_no_page() -> None:
    """The headers of a refusal."""
    assert PAGE.headers(())["Content-Security-Policy"].endswith("frame-ancestors 'none'")


def test_a_client_over_http_is_allowed_by_its_scheme() -> None:
    """Only where there is one: configuration has let it onto the page."""
    policy = PAGE.headers(RULES.origins, [asked("a"), asked("b", "http://b.example.com/out")])[
        "Content-Security-Policy"
    ]
    assert "frame-src https: http:; connect-src 'self' https: http:;" in policy


def test_the_plan_says_what_the_script_needs() -> None:
    """Milliseconds, the report's path, the origins to tell, and the clients; names only where they are to be shown."""
    plan = PagePlan(asked=(asked("billing", name="Bills"),), unasked=(UnaskedClient(client_id="shop", name="Shop"),))
    document = PAGE.document(plan, RULES, REPORT)
    assert plan_of(document) == {
        "limit": 5000,
        "report": REPORT,
        "parents": list(RULES.origins),
        "clients": [{"id": "billing", "uri": "https://billing.example.net/out"}],
        "unasked": [{"id": "shop"}],
    }
    assert "Bills" not in document
    assert 'role="status"' not in document
    shown = PAGE.document(plan, PageRules(path="", origins=(OP,), limit=0.25, show_names=True), None)
    assert plan_of(shown)["clients"][0]["name"] == "Bills"
    assert plan_of(shown)["unasked"] == [{"id": "shop", "name": "Shop"}]
    assert (plan_of(shown)["limit"], plan_of(shown)["report"]) == (250, None)
    assert 'role="status"' in shown


def test_so_many_clients_have_a_frame_and_without_script_all_have_one() -> None:
    """A frame costs the browser a process; where no script runs, frames are all there is."""
    clients = tuple(asked(f"c{n}", f"https://c{n}.example.com/out") for n in range(FRAMES + 3))
    rules = PageRules(path="", origins=(OP,))
    document = PAGE.document(PagePlan(asked=clients), rules, REPORT)
    scripted = re.sub(r"<noscript>.*?</noscript>", "", document, flags=re.DOTALL)
    assert [frame["data-n"] for frame in _Reader(scripted).frames()] == [str(n) for n in range(FRAMES)]
    assert [frame["src"] for frame in _Reader(document).frames()] == [each.uri for each in clients]
    assert {frame["sandbox"] for frame in _Reader(document).frames()} == {"allow-scripts allow-same-origin allow-forms"}
    whole = PAGE.document(PagePlan(asked=clients[:FRAMES]), rules, REPORT)
    assert "<noscript>" not in whole
    assert "loading=" not in document  # a hidden frame that is lazy never loads


TEXT = st.text(min_size=1, max_size=30) | st.sampled_from(
    [
        '"><script>alert(1)</script>',
        "</script><!--",
        "<!--<script>",
        "'-alert(1)-'",
        "</iframe>",
        "</noscript><img/src=x>",
    ]
)


@settings(max_examples=30)
@given(client_id=TEXT, name=TEXT, query=TEXT, origin=TEXT, report=TEXT)
def test_nothing_of_a_client_becomes_markup(client_id: str, name: str, query: str, origin: str, report: str) -> None:
    """Whatever the registry holds: what is read out is what was put in, and the elements are ours alone."""
    uri = f"https://c.example.com/out?x={query}"
    plan = PagePlan(
        asked=(asked(client_id, uri, name), *(asked(f"c{n}", uri) for n in range(FRAMES))),
        unasked=(UnaskedClient(client_id=name, name=name),),
    )
    rules = PageRules(path="", origins=(origin,), show_names=True)
    document = PAGE.document(plan, rules, report)
    read = _Reader(document)
    told = plan_of(document)
    assert told["clients"][0] == {"id": client_id, "name": name, "uri": uri}
    assert (told["unasked"], told["parents"], told["report"]) == ([{"id": name, "name": name}], [origin], report)
    assert [tag for tag, _ in read.elements if tag not in ("html", "head", "body", "meta", "title")] == [
        "style", "script", "script", "main", "p", *["iframe"] * FRAMES, "noscript", "iframe",
    ]  # fmt: skip
    assert read.texts["script"] == PAGE.script
    sources = [frame["src"] for frame in read.frames()]
    assert [(source or "").replace("\r\n", "\n").replace("\r", "\n") for source in sources] == [
        uri.replace("\r\n", "\n").replace("\r", "\n")
    ] * (FRAMES + 1)
