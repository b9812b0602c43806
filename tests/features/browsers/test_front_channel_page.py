"""The page of front-channel logouts: its sealed context, its document and headers, its report, and its metrics."""

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Mapping
from html.parser import HTMLParser
from string import ascii_letters, digits
from typing import Any

import pytest
from cryptography.fernet import Fernet, MultiFernet
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from notifier.features.browsers.front_channel_context import (
    CONTEXT_LIFETIME_SECONDS,
    MAX_CONTEXT_CHARACTERS,
    TooManyClients,
    open_context,
    seal_context,
)
from notifier.features.browsers.front_channel_counts import (
    MAX_REPORT_BYTES,
    REACH,
    BrowserReach,
    FrontChannelCounts,
    PageEnd,
    PageReport,
    PageResult,
    read_report,
)
from notifier.features.browsers.front_channel_routes import MAX_FRAMES, FrontChannelPage
from notifier.features.browsers.web_settings import WebIssuerSettings
from notifier.model.client import Client, FrontChannelClient
from notifier.model.front_channel import AddressRefusal, AskedClient, FrontChannelContext, PagePlan, UnaskedClient
from notifier.model.record import copy_record
from notifier.model.registry import Issuer, Registry
from notifier.telemetry.metrics import Metrics
from notifier.telemetry.metrics_page import MetricsPage

# ── The document and the headers of a front-channel page, as they leave us ────────────────────────────────────────


OP = "https://login.example.com"
SETTINGS = WebIssuerSettings(url=f"{OP}/connect/notify", parents=("https://upstream.example.org",))
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
    headers = PAGE.headers(SETTINGS.origins, [asked("billing")])
    read = _Reader(PAGE.render(PagePlan(asked=(asked("billing"),)), SETTINGS, REPORT))
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


def test_the_plan_has_the_data_of_the_script() -> None:
    """Milliseconds, the report's path, the parent origins, and the clients; names only where they are to be shown."""
    plan = PagePlan(asked=(asked("billing", name="Bills"),), unasked=(UnaskedClient(client_id="shop", name="Shop"),))
    document = PAGE.render(plan, SETTINGS, REPORT)
    assert plan_of(document) == {
        "limit": 5000,
        "report": REPORT,
        "parents": list(SETTINGS.origins),
        "clients": [{"id": "billing", "uri": "https://billing.example.net/out"}],
        "unasked": [{"id": "shop"}],
    }
    assert "Bills" not in document
    assert 'role="status"' not in document
    shown = PAGE.render(plan, WebIssuerSettings.model_validate({"url": OP, "limit": "250ms", "show_names": True}), None)
    assert plan_of(shown)["clients"][0]["name"] == "Bills"
    assert plan_of(shown)["unasked"] == [{"id": "shop", "name": "Shop"}]
    assert (plan_of(shown)["limit"], plan_of(shown)["report"]) == (250, None)
    assert 'role="status"' in shown


def test_so_many_clients_have_a_frame_and_without_script_all_have_one() -> None:
    """A frame costs the browser a process; where no script runs, frames are all there is."""
    clients = tuple(asked(f"c{n}", f"https://c{n}.example.com/out") for n in range(MAX_FRAMES + 3))
    settings = WebIssuerSettings(url=OP)
    document = PAGE.render(PagePlan(asked=clients), settings, REPORT)
    scripted = re.sub(r"<noscript>.*?</noscript>", "", document, flags=re.DOTALL)
    assert [frame["data-n"] for frame in _Reader(scripted).frames()] == [str(n) for n in range(MAX_FRAMES)]
    assert [frame["src"] for frame in _Reader(document).frames()] == [each.uri for each in clients]
    assert {frame["sandbox"] for frame in _Reader(document).frames()} == {"allow-scripts allow-same-origin allow-forms"}
    whole = PAGE.render(PagePlan(asked=clients[:MAX_FRAMES]), settings, REPORT)
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
    """Whatever the registry holds: the plan is read back unchanged, and only the page's own elements exist."""
    uri = f"https://c.example.com/out?x={query}"
    plan = PagePlan(
        asked=(asked(client_id, uri, name), *(asked(f"c{n}", uri) for n in range(MAX_FRAMES))),
        unasked=(UnaskedClient(client_id=name, name=name),),
    )
    settings = WebIssuerSettings.model_construct(url=OP, parents=(origin,), show_names=True)
    document = PAGE.render(plan, settings, report)
    read = _Reader(document)
    shown_plan = plan_of(document)
    assert shown_plan["clients"][0] == {"id": client_id, "name": name, "uri": uri}
    assert (shown_plan["unasked"], shown_plan["parents"], shown_plan["report"]) == (
        [{"id": name, "name": name}],
        [OP, origin],
        report,
    )
    assert [tag for tag, _ in read.elements if tag not in ("html", "head", "body", "meta", "title")] == [
        "style", "script", "script", "main", "p", *["iframe"] * MAX_FRAMES, "noscript", "iframe",
    ]  # fmt: skip
    assert read.texts["script"] == PAGE.script
    sources = [frame["src"] for frame in read.frames()]
    assert [(source or "").replace("\r\n", "\n").replace("\r", "\n") for source in sources] == [
        uri.replace("\r\n", "\n").replace("\r", "\n")
    ] * (MAX_FRAMES + 1)


# ── The context of a front-channel page, sealed into the page's URL ───────────────────────────────────────────────


ISS = "https://login.example.com"
OLD, NEW = Fernet(Fernet.generate_key()), Fernet(Fernet.generate_key())
KEYS = MultiFernet([NEW, OLD])
NOW = 1_800_000_000.5
CONTEXT = FrontChannelContext(iss=ISS, sid="5F2A", clients=(("billing", None), ("shop", "own")))


def test_a_sealed_context_opens_unchanged() -> None:
    """By each of the keys, for ten minutes, with the same id at each opening."""
    text = seal_context(CONTEXT, KEYS, NOW)
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    opened = open_context(text, MultiFernet([OLD, NEW]), NOW + CONTEXT_LIFETIME_SECONDS)
    assert opened is not None
    assert opened.context == CONTEXT
    assert opened.expires_at == int(NOW) + CONTEXT_LIFETIME_SECONDS
    again = open_context(text, KEYS, NOW)
    assert again is not None
    assert again.id == opened.id


def test_addresses_come_back_as_they_were_sealed() -> None:
    """And a client that is named again counts as it was named first."""
    front = FrontChannelClient(
        frontchannel_logout_uri="https://new.example.net/out", frontchannel_logout_session_required=True
    )
    context = copy_record(
        CONTEXT, clients=(("new", None), *CONTEXT.clients, ("own", "sid")), supplied={"new": front, "own": front}
    )
    opened = open_context(seal_context(context, KEYS, NOW), KEYS, NOW)
    assert opened is not None
    assert opened.context == context
    again = [ISS, None, "new", ["new", "x", "https://evil.example.net/", False], ["new", "y"]]
    opened = open_context(_fernet(again), KEYS, NOW)
    assert opened is not None
    assert (opened.context.clients, opened.context.supplied) == ((("new", None),), {})


def test_a_context_has_one_id_however_it_is_spelled() -> None:
    """Else each spelling would be another context, whose report counts, and some lead a page to report elsewhere."""
    text = seal_context(CONTEXT, KEYS, NOW)
    opened = open_context(text, KEYS, NOW)
    assert opened is not None
    padded = open_context(text + "=" * (-len(text) % 4), KEYS, NOW)
    assert padded == opened
    for strange in (".", "\\..\\", "!", "~", "?"):
        assert open_context(text[:50] + strange * 4 + text[50:], KEYS, NOW) is None
    spelled = text.replace("_", "/").replace("-", "+")
    assert spelled == text or open_context(spelled, KEYS, NOW) is None
    found = {
        each.id
        for last in ascii_letters + digits + "-_"
        if (each := open_context(text[:-1] + last, KEYS, NOW)) is not None
    }
    assert found == {opened.id}


def _fernet(document: object) -> str:
    plain = json.dumps(document).encode()
    return NEW.encrypt_at_time(zlib.compress(plain), int(NOW)).decode().rstrip("=")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "é",
        "A" * 7501,
        seal_context(CONTEXT, MultiFernet([Fernet(Fernet.generate_key())]), NOW),
        seal_context(CONTEXT, KEYS, NOW - CONTEXT_LIFETIME_SECONDS - 1),
        seal_context(CONTEXT, KEYS, NOW)[:-3] + "AAA",
        _fernet({"iss": ISS}),
        _fernet([ISS]),
        _fernet([ISS, 5, "billing"]),
        _fernet([ISS, None, {"client": "billing"}]),
        _fernet([ISS, None, ["billing", None, "https://billing.example.net/"]]),
        _fernet([ISS, None, ["billing", None, "https://billing.example.net/", 1]]),
        _fernet([ISS, None, ["billing", 5, "https://billing.example.net/", True]]),
        _fernet([ISS, None, ["billing", None, None, True]]),
        _fernet([ISS, None, ["billing", None, "https://billing.example.net/", True, "more"]]),
        _fernet([ISS, None, ["billing", None]]),
        _fernet([ISS, None, "x" * 300_000]),
        _fernet([ISS, "\ud800", "billing"]),
        NEW.encrypt_at_time(b"no zlib", int(NOW)).decode(),
    ],
    ids=range(19),
)
def test_an_invalid_context_is_not_opened(text: str) -> None:
    """Forged, expired, changed, far too long, or not of this form."""
    assert open_context(text, KEYS, NOW) is None


def test_too_many_clients_are_refused() -> None:
    """Random client ids do not compress."""
    clients = tuple((Fernet.generate_key().decode()[:36], None) for _ in range(400))
    with pytest.raises(TooManyClients):
        seal_context(FrontChannelContext(iss=ISS, sid="5F2A", clients=clients), KEYS, NOW)
    fits = seal_context(FrontChannelContext(iss=ISS, sid="5F2A", clients=clients[:150]), KEYS, NOW)
    assert len(fits) <= MAX_CONTEXT_CHARACTERS


# ── A report of a page: what is one, and what it counts for ───────────────────────────────────────────────────────


GOOD = {"how": "limit", "ms": 5000, "clients": ["answered", "silent"]}


def test_a_report_has_one_word_for_each_client() -> None:
    """In the order of the plan. Other members are ignored."""
    report = read_report(json.dumps(GOOD).encode(), 2)
    assert report == PageReport(end=PageEnd.LIMIT, results=(PageResult.ANSWERED, PageResult.SILENT))
    assert read_report(b'{"how": "done", "clients": []}', 0) == PageReport(end=PageEnd.DONE, results=())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"7",
        b"[" * 5000,
        b"\xff",
        json.dumps({**GOOD, "how": "well"}).encode(),
        json.dumps({**GOOD, "clients": ["answered"]}).encode(),
        json.dumps({**GOOD, "clients": ["answered"] * 3}).encode(),
        json.dumps({**GOOD, "clients": ["answered", "logged-out"]}).encode(),
        json.dumps({**GOOD, "clients": ["answered", []]}).encode(),
        json.dumps({**GOOD, "clients": 2}).encode(),
        json.dumps({"how": "limit"}).encode(),
        json.dumps({**GOOD, "pad": "x" * MAX_REPORT_BYTES}).encode(),
    ],
    ids=range(13),
)
def test_an_invalid_report_is_refused(body: bytes) -> None:
    """Whoever has a page's address can send anything."""
    assert read_report(body, 2) is None


def test_only_an_answer_counts_as_reached() -> None:
    """Each result counts for one thing, and a largest page's report is within the limit."""
    assert set(REACH) == set(PageResult)
    assert {result for result, reach in REACH.items() if reach is BrowserReach.REACHED} == {"confirmed", "answered"}
    largest = {"how": "limit", "ms": 30_000, "clients": ["confirmed"] * 600}
    assert read_report(json.dumps(largest, separators=(",", ":")).encode(), 600) is not None


# ── Metrics of front-channel pages: what is counted under which name ──────────────────────────────────────────────


ID = "https://id.example.com"
REACHED, UNREACHABLE, UNKNOWN = BrowserReach
Samples = Mapping[tuple[str, ...], float]


def registry_of(*client_ids: str) -> Registry:
    clients = {each: Client(iss=ID, client_id=each, backchannel_logout_uri=None) for each in client_ids}
    return Registry(issuers={ID: Issuer(iss=ID)}, clients={ID: clients})


def counting(*client_ids: str) -> tuple[MetricsPage, FrontChannelCounts]:
    """The metrics of a worker with these clients, and what counts the pages."""
    subject = Metrics(lambda: registry_of(*client_ids))
    counts = FrontChannelCounts(subject.label)
    return MetricsPage(subject, feature_families=[counts.families]), counts


async def scrape(subject: MetricsPage) -> Samples:
    page = (await subject.render()).decode()
    prefix = "notifier_front_channel_"
    return {
        (
            sample.name.removeprefix(prefix),
            *(sample.labels[name] for name in ("iss", "client_id", "result", "reason") if name in sample.labels),
        ): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name.startswith(prefix)
    }


async def test_pages_and_reports_exist_at_zero_from_the_start() -> None:
    """So that the first page is an increase. A client's counters start with the first page that calls it."""
    subject, counts = counting("shop")
    assert await scrape(subject) == {
        ("pages_total", "shown"): 0,
        ("pages_total", "refused"): 0,
        **{("left_out_total", str(reason)): 0 for reason in AddressRefusal},
        **{("reports_total", result): 0 for result in ("done", "limit", "left", "repeated", "refused")},
    }
    counts.on_page_shown(ID, ["shop"])
    samples = await scrape(subject)
    assert samples["pages_total", "shown"] == 1
    assert {labels: value for labels, value in samples.items() if labels[0] == "clients_total"} == {
        ("clients_total", ID, "shop", result): 0 for result in ("reached", "unreachable", "unknown")
    }


async def test_each_report_counts_once_where_it_belongs() -> None:
    """By the end of its page, and by its result for each client."""
    subject, counts = counting("shop", "mail")
    counts.on_report(PageEnd.LIMIT, ID, [("shop", REACHED), ("mail", UNKNOWN)])
    counts.on_report(PageEnd.DONE, ID, [("shop", REACHED), ("mail", UNREACHABLE)])
    counts.on_clients_omitted(AddressRefusal.SPEAKER, 2)
    for count in (counts.on_page_refused, counts.on_repeated_report, counts.on_refused_report):
        count()
    counted = {labels: value for labels, value in (await scrape(subject)).items() if value}
    assert counted == {
        ("pages_total", "refused"): 1,
        ("left_out_total", "speaker"): 2,
        ("reports_total", "limit"): 1,
        ("reports_total", "done"): 1,
        ("reports_total", "repeated"): 1,
        ("reports_total", "refused"): 1,
        ("clients_total", ID, "shop", "reached"): 2,
        ("clients_total", ID, "mail", "unknown"): 1,
        ("clients_total", ID, "mail", "unreachable"): 1,
    }
