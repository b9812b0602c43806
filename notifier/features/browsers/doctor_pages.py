"""The doctor's check of the front-channel pages: does the issuer's proxy pass them on, as they are, without cookies?

It asks for an address that is as long as a page's may be and opens nothing. What is refused says of itself whether a
cookie came with it, so that one answer shows the whole way.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

from notifier.model.frozen import frozen
from notifier.network.http.issuer_document import AnswerHead, UnreadDocument
from notifier.operators.doctor.doctor import Area, Finding, failed, ok, warning

COOKIE = {"Cookie": "notifier-doctor=asks-whether-cookies-pass"}
_TO_US = "have the proxy pass on what is under that path to web.listen, without the prefix: docs/front-channel.md"


@frozen
class PageCase:
    """Where the pages of an issuer are, and what a refused one says.

    `saw_cookie` names the header by which it says whether a cookie came; `elsewhere` is the policy of what is no page.
    """

    url: str
    headers: Mapping[str, str]
    saw_cookie: str
    elsewhere: str


async def examine_pages(
    case: PageCase, look: Callable[[Mapping[str, str]], Awaitable[AnswerHead | UnreadDocument]]
) -> Sequence[Finding]:
    """Ask for a page through the proxy. `look` sends these headers, and never raises."""
    answer = await look(COOKIE)
    if isinstance(answer, UnreadDocument):
        advice = "look whether this machine reaches it, or only browsers do; see tls of the issuer for its certificate"
        return [failed(Area.LISTENER, case.url, f"the pages cannot be fetched: {answer.text}", advice)]
    if case.saw_cookie.lower() not in answer.headers:
        return [failed(Area.LISTENER, case.url, *_not_ours(case, answer))]
    wrong = list(_changed(case, answer))
    return wrong or [ok(Area.LISTENER, case.url, "the proxy passes pages on, with their headers and without cookies")]


def _not_ours(case: PageCase, answer: AnswerHead) -> tuple[str, str]:
    """What is wrong where no page answers, and what to do."""
    if case.elsewhere in answer.headers.get("content-security-policy", ()):
        return f"notifier answers {answer.status}, since the address that reaches it is not a page's", _TO_US
    match answer.status:
        case 414 | 431:
            text = f"an address as long as a page's may be is answered {answer.status}"
            return text, "raise the proxy's limit of a request's line to 8 KiB (nginx: large_client_header_buffers)"
        case 502 | 503 | 504:
            text = f"is answered {answer.status}: the proxy reaches no worker that listens"
            return (
                text,
                "look whether workers run with the section web, and whether the proxy may connect to web.listen",
            )
        case status if 300 <= status < 400:
            text = f"is answered {status}, a redirect, so the proxy or the identity server answers itself"
            return text, _TO_US
        case status:
            return f"is answered {status}, and not by notifier", _TO_US


def _changed(case: PageCase, answer: AnswerHead) -> Iterator[Finding]:
    for name, value in case.headers.items():
        values = answer.headers.get(name.lower(), ())
        if not values:
            text, advice = f"the proxy takes away {name}", "have it pass on the headers of these answers"
            yield failed(
                Area.LISTENER, case.url, text, f"{advice}: they say who may frame a page, and that nobody keeps it"
            )
        elif len(values) > 1:
            text = f"the proxy adds a second {name}: {_short(next(each for each in values if each != value), value)}"
            yield failed(Area.LISTENER, case.url, text, "browsers obey both: add none under that path")
        elif values != (value,):
            text = f"{name} is not what this release sends: {_short(values[0], value)}"
            yield warning(Area.LISTENER, case.url, text, "the proxy changes it, or workers are of another release")
    if framing := answer.headers.get("x-frame-options"):
        text = f"the proxy adds X-Frame-Options: {framing[0]:.40}, by which some browsers show no page"
        yield warning(
            Area.LISTENER, case.url, text, "add none under that path: a page's own policy says who may frame it"
        )
    if answer.headers[case.saw_cookie.lower()] != ("none",):
        text = "the proxy passes cookies on; notifier neither reads nor logs them, and needs none"
        advice = 'take them away under that path (nginx: proxy_set_header Cookie "")'
        yield warning(Area.LISTENER, case.url, text, advice)


def _short(value: str, instead_of: str) -> str:
    """Enough of a header to find it."""
    return f"{value[:80]!r} beside {instead_of[:40]!r}"
