"""The doctor's check of front-channel pages: does the issuer's proxy forward them unchanged and without cookies?

It requests a page with an invalid context of the maximum length. The header `Notifier-Cookies` of notifier's refusal
states whether a cookie arrived, so that one response verifies the whole path.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial

from notifier.configuration.loading import LoadedConfiguration
from notifier.features.browsers.front_channel_context import MAX_CONTEXT_CHARACTERS
from notifier.features.browsers.front_channel_routes import COOKIES_SEEN_HEADER, PAGE_PATH, FrontChannelPage
from notifier.features.browsers.web_settings import web_of
from notifier.model.client import TlsFiles
from notifier.network.http.issuer_document import AnswerHead, DocumentIssue, is_for_tests, issuer_egress
from notifier.network.http.issuer_documents import DocumentReader
from notifier.network.listeners.web_app import DEFAULT_HEADERS
from notifier.operators.doctor.doctor import Area, Check, Finding, failure, ok, warning

PAGE_TIMEOUT_SECONDS = 10.0

COOKIE_HEADERS = {"Cookie": "notifier-doctor=asks-whether-cookies-pass"}
_PROXY_ADVICE = (
    "have the proxy forward requests under that path to web.listen, without the prefix, with URLs of up to 8 KiB:"
    " docs/front-channel.md"
)


def page_checks(loaded: LoadedConfiguration, reader: DocumentReader) -> Iterator[Check]:
    """Yield a check for each issuer with pages, except test issuers."""
    settings = loaded.settings
    section = web_of(settings)
    if section is None:
        return
    egress = issuer_egress(settings.template().route.egress)
    for iss, pages in section.issuers.items():
        if is_for_tests(iss):
            continue
        tls = settings.issuers[iss].tls
        files = TlsFiles() if tls is None else tls.files()
        invalid_page = pages.url + PAGE_PATH.replace("{context}", "A" * MAX_CONTEXT_CHARACTERS)
        request_page = partial(reader.read_head, invalid_page, egress=egress, tls=files, within=PAGE_TIMEOUT_SECONDS)
        run = partial(_examine_pages, pages.url, request_page)
        yield Check(area=Area.LISTENER, subject=pages.url, timeout=PAGE_TIMEOUT_SECONDS + 2, run=run)


async def _examine_pages(
    url: str, request_page: Callable[[Mapping[str, str]], Awaitable[AnswerHead | DocumentIssue]]
) -> Sequence[Finding]:
    """Return the findings on the proxy of the pages at `url`. `request_page` sends a request with the headers."""
    answer = await request_page(COOKIE_HEADERS)
    if isinstance(answer, DocumentIssue):
        advice = "check that this machine can reach it; for a private CA, set tls of the issuer"
        return [failure(Area.LISTENER, url, f"the pages cannot be fetched: {answer.text}", advice)]
    if COOKIES_SEEN_HEADER.lower() not in answer.headers:
        return [failure(Area.LISTENER, url, _explain_foreign_answer(answer), _PROXY_ADVICE)]
    findings = list(_check_headers(url, answer))
    return findings or [ok(Area.LISTENER, url, "the proxy passes pages on, with their headers and without cookies")]


def _explain_foreign_answer(answer: AnswerHead) -> str:
    """Return the error for a response without the header that notifier's page route sets."""
    if DEFAULT_HEADERS["Content-Security-Policy"] in answer.headers.get("content-security-policy", ()):
        return f"notifier answers {answer.status}, since the URL that it receives is not that of a page"
    return f"another server answers with {answer.status}"


def _check_headers(url: str, answer: AnswerHead) -> Iterator[Finding]:
    """Yield a finding for each header of a page that the proxy removes, changes or adds, and for cookies."""
    for name, value in FrontChannelPage().headers(()).items():
        values = answer.headers.get(name.lower(), ())
        differing = [sent for sent in values if sent != value]
        if not values:
            text, advice = f"the proxy removes {name}", "have it keep the headers of these responses"
            yield failure(Area.LISTENER, url, text, f"{advice}: they restrict the framing and caching of pages")
        elif differing and len(values) > 1:
            text = f"the proxy adds a second {name}: {_format_excerpts(differing[0], value)}"
            yield failure(Area.LISTENER, url, text, "browsers apply both: add none under that path")
        elif differing:
            text = f"{name} differs from this release's value: {_format_excerpts(values[0], value)}"
            yield warning(Area.LISTENER, url, text, "the proxy changes it, or workers are of another release")
    framing = answer.headers.get("x-frame-options")
    if framing:
        text = f"the proxy adds X-Frame-Options: {framing[0]:.40}; some browsers then do not show the page"
        yield warning(Area.LISTENER, url, text, "add none under that path: a page's own policy restricts framing")
    if answer.headers[COOKIES_SEEN_HEADER.lower()] != ("none",):
        text = "the proxy passes cookies on; notifier neither needs, reads nor logs them"
        advice = 'remove them under that path (nginx: proxy_set_header Cookie "")'
        yield warning(Area.LISTENER, url, text, advice)


def _format_excerpts(received: str, expected: str) -> str:
    return f"{received[:80]!r} beside {expected[:40]!r}"
