"""The doctor's check of front-channel pages: does the issuer's proxy forward them unchanged and without cookies?

It requests an invalid page address of the maximum length. The refusal states whether the request had a cookie, so that
one answer verifies the whole path.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial

from notifier.features.browsers.front_channel_context import MAX_CONTEXT_CHARACTERS
from notifier.features.browsers.front_channel_page import FrontChannelPage
from notifier.features.browsers.front_channel_routes import COOKIES_SEEN_HEADER, PAGE_PATH
from notifier.features.browsers.web_settings import web_of
from notifier.model.client import TlsFiles
from notifier.network.http.issuer_document import AnswerHead, DocumentIssue, is_for_tests, issuer_egress
from notifier.network.http.issuer_documents import DocumentReader
from notifier.network.listeners.web_app import DEFAULT_HEADERS
from notifier.operators.doctor.doctor import Area, Check, Finding, failure, ok, warning
from notifier.settings.service_settings import Settings

PAGE_TIMEOUT_SECONDS = 10.0

COOKIE_HEADERS = {"Cookie": "notifier-doctor=asks-whether-cookies-pass"}
_PROXY_ADVICE = (
    "have the proxy forward requests under that path to web.listen, without the prefix, with URLs of up to 8 KiB:"
    " docs/front-channel.md"
)


def page_checks(settings: Settings, reader: DocumentReader) -> Iterator[Check]:
    """Yield a check for each issuer with pages, except test issuers."""
    egress = issuer_egress(settings.template().route.egress)
    section = web_of(settings)
    for iss, pages in ({} if section is None else section.issuers).items():
        if is_for_tests(iss):
            continue
        tls = settings.issuers[iss].tls
        files = TlsFiles() if tls is None else tls.files()
        address = pages.url + PAGE_PATH.replace("{context}", "A" * MAX_CONTEXT_CHARACTERS)
        ask = partial(reader.look, address, egress=egress, tls=files, within=PAGE_TIMEOUT_SECONDS)
        run = partial(_examine_pages, pages.url, ask)
        yield Check(area=Area.LISTENER, subject=pages.url, timeout=PAGE_TIMEOUT_SECONDS + 2, run=run)


async def _examine_pages(
    url: str, ask: Callable[[Mapping[str, str]], Awaitable[AnswerHead | DocumentIssue]]
) -> Sequence[Finding]:
    """Request a page through the proxy. `ask` sends the request with the given headers and never raises."""
    answer = await ask(COOKIE_HEADERS)
    if isinstance(answer, DocumentIssue):
        advice = "check that this machine can reach it; for a private CA, set tls of the issuer"
        return [failure(Area.LISTENER, url, f"the pages cannot be fetched: {answer.text}", advice)]
    if COOKIES_SEEN_HEADER.lower() not in answer.headers:
        return [failure(Area.LISTENER, url, *_explain_answer(answer))]
    wrong = list(_check_headers(url, answer))
    return wrong or [ok(Area.LISTENER, url, "the proxy passes pages on, with their headers and without cookies")]


def _explain_answer(answer: AnswerHead) -> tuple[str, str]:
    """Return the error and the remedy for a response that does not come from the page route."""
    if DEFAULT_HEADERS["Content-Security-Policy"] in answer.headers.get("content-security-policy", ()):
        return f"notifier answers {answer.status}, since the URL that it receives is not that of a page", _PROXY_ADVICE
    return f"another server answers with {answer.status}", _PROXY_ADVICE


def _check_headers(url: str, answer: AnswerHead) -> Iterator[Finding]:
    for name, value in FrontChannelPage().headers(()).items():
        values = answer.headers.get(name.lower(), ())
        if not values:
            text, advice = f"the proxy removes {name}", "have it keep the headers of these responses"
            yield failure(Area.LISTENER, url, text, f"{advice}: they restrict the framing and caching of pages")
        elif len(values) > 1:
            added = next(other for other in values if other != value)
            text = f"the proxy adds a second {name}: {_format_excerpts(added, value)}"
            yield failure(Area.LISTENER, url, text, "browsers apply both: add none under that path")
        elif values != (value,):
            text = f"{name} differs from this release's value: {_format_excerpts(values[0], value)}"
            yield warning(Area.LISTENER, url, text, "the proxy changes it, or workers are of another release")
    if framing := answer.headers.get("x-frame-options"):
        text = f"the proxy adds X-Frame-Options: {framing[0]:.40}; some browsers then do not show the page"
        yield warning(Area.LISTENER, url, text, "add none under that path: a page's own policy restricts framing")
    if answer.headers[COOKIES_SEEN_HEADER.lower()] != ("none",):
        text = "the proxy passes cookies on; notifier neither needs, reads nor logs them"
        advice = 'remove them under that path (nginx: proxy_set_header Cookie "")'
        yield warning(Area.LISTENER, url, text, advice)


def _format_excerpts(value: str, instead_of: str) -> str:
    return f"{value[:80]!r} beside {instead_of[:40]!r}"
