"""Serve `GET /front-channel/{context}`, the page that requests the clients of an ended session, and its `POST`.

By the POST, the page's script reports the results, which change only metrics. A page depends on its context only, and
nothing is stored. Anyone who has a page's URL can open it for ten minutes in a frame of the issuer's pages. This is
harmless, since the session has already ended.

The script and the style are files in this folder. They are the same on all pages, so that the Content-Security-Policy
permits them by hash. Variable parts are in a JSON block, to which the policy does not apply, and in attributes.
"""

import base64
import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from importlib import resources
from urllib.parse import urlsplit

from aiohttp import web

from notifier.features.browsers.front_channel_context import OpenedContext, TooManyClients
from notifier.features.browsers.front_channel_counts import (
    MAX_REPORT_BYTES,
    REACH,
    BrowserReach,
    FrontChannelCounts,
    read_report,
)
from notifier.features.browsers.supplied_addresses import SuppliedAddresses
from notifier.features.browsers.web_settings import WebIssuerSettings
from notifier.model.front_channel import AskedClient, FrontChannelContext, PagePlan, plan_page
from notifier.model.record import record
from notifier.model.registry import Registry
from notifier.model.shared_resources import shared_bound
from notifier.network.listeners.problem import Refusal
from notifier.publishing.route_steps import ApiLimits, read_body

PAGE_PATH = "/front-channel/{context}"
COOKIES_SEEN_HEADER = "Notifier-Cookies"
_SANDBOX = "allow-scripts allow-same-origin allow-forms"
"""A client's frame keeps its origin and its cookies. It may neither navigate the top-level page nor download."""
MAX_FRAMES = 25  # a browser may start a process for each
_STATUS = '<main id="status" role="status"><p>Signing you out of your applications…</p></main>\n'


class FrontChannelPage:
    """Renders pages and their headers."""

    def __init__(self) -> None:
        self.script = _read_resource("front_channel_page.js")
        self.style = _read_resource("front_channel_page.css")
        self._policy_of_files = f"script-src {_hash_of(self.script)}; style-src {_hash_of(self.style)}"

    def headers(self, origins: Sequence[str], asked: Iterable[AskedClient] = ()) -> dict[str, str]:
        """Return the headers of a page that requests the clients `asked`. Only `origins` may frame it.

        `frame-src` lists schemes instead of clients: a list would block a client's redirect to another origin, and
        would exceed the header buffers of proxies. The frames' addresses come from a sealed context.
        """
        has_http_client = any(urlsplit(client.uri).scheme == "http" for client in asked)
        schemes = "https: http:" if has_http_client else "https:"
        ancestors = " ".join(origins) if origins else "'none'"
        policy = (
            f"default-src 'none'; {self._policy_of_files}; frame-src {schemes}; connect-src 'self' {schemes};"
            f" base-uri 'none'; form-action 'none'; frame-ancestors {ancestors}"
        )
        return {
            "Content-Security-Policy": policy,
            "Cache-Control": "no-store",
            "Referrer-Policy": "strict-origin",  # without the path, which contains the context
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "cross-origin",
            "X-Robots-Tag": "noindex",
        }

    def render(self, plan: PagePlan, settings: WebIssuerSettings, report: str | None) -> str:
        """Return the page as HTML. Its script sends the results to the path `report`; without a path it sends none.

        The script requests all clients by fetch. A browser without scripts requests them by their frames only, so that
        it loads also the frames beyond MAX_FRAMES.
        """
        show_names = settings.show_names
        content = {
            "limit": round(settings.limit * 1000),
            "report": report,
            "parents": settings.origins,
            "clients": [
                {**_to_client_entry(client.client_id, client.name, show_names), "uri": client.uri}
                for client in plan.asked
            ],
            "unasked": [_to_client_entry(client.client_id, client.name, show_names) for client in plan.unasked],
        }
        frames = [_render_frame(nth, client.uri) for nth, client in enumerate(plan.asked)]
        body = "\n".join(frames[:MAX_FRAMES])
        if len(frames) > MAX_FRAMES:
            body += "\n<noscript>\n" + "\n".join(frames[MAX_FRAMES:]) + "\n</noscript>"
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Signing out</title>\n'
            '<meta name="viewport" content="width=device-width">\n'
            f"<style>{self.style}</style>\n"
            f'<script type="application/json" id="plan">{_format_json_block(content)}</script>\n'
            f"<script>{self.script}</script></head>\n"  # before the frames, so that its requests come first
            f"<body>\n{_STATUS if show_names else ''}{body}\n</body></html>\n"
        )


def _to_client_entry(client_id: str, name: str, show_names: bool) -> dict[str, str]:  # noqa: FBT001
    return {"id": client_id, "name": name} if show_names else {"id": client_id}


def _render_frame(nth: int, uri: str) -> str:
    return f'<iframe data-n="{nth}" src="{escape(uri)}" sandbox="{_SANDBOX}" allow=""></iframe>'


def _format_json_block(value: object) -> str:
    """Return JSON for a script element. An escaped `<` can neither end the element nor open a comment."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _read_resource(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def _hash_of(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


"""The header of a refused page states whether the request had cookies: `some` or `none`. The doctor reads it."""
MAX_REPORTED_CONTEXTS = shared_bound(10_000)  # of one worker; a context expires after CONTEXT_LIFETIME_SECONDS


@record
class PageDependencies:
    """The dependencies of the routes, called at each request. `settings_of` returns None if the issuer has no pages.

    `open_context` returns None for an invalid or expired context. `seal_context` raises TooManyClients.
    """

    open_context: Callable[[str], OpenedContext | None]
    seal_context: Callable[[FrontChannelContext], str]
    settings_of: Callable[[str], WebIssuerSettings | None]
    registry: Callable[[], Registry]
    supplied: SuppliedAddresses
    counts: FrontChannelCounts


class FrontChannelRoutes:
    """Serves pages and receives their reports. `max_reported`: the number of contexts with a remembered report."""

    def __init__(self, dependencies: PageDependencies, *, max_reported: int = MAX_REPORTED_CONTEXTS) -> None:
        self._dependencies = dependencies
        self._max_reported = max_reported
        self._page = FrontChannelPage()
        self._reported_ids: OrderedDict[str, None] = OrderedDict()
        self._limits = ApiLimits(max_event=MAX_REPORT_BYTES)

    def routes(self) -> Iterator[web.RouteDef]:
        """Return the routes for the web listener's application."""
        yield web.get(PAGE_PATH, self.get_page, allow_head=False)
        yield web.post(PAGE_PATH, self.post_report)

    async def get_page(self, request: web.Request) -> web.Response:
        """Return the page of the sealed context in the path; a 400 if the context is invalid."""
        sealed = request.match_info["context"]
        opened = self._dependencies.open_context(sealed)
        if opened is not None:
            return self._render_page(opened.context, sealed, exclusive_key=opened.exclusive_key)
        refused = self.refuse()
        refused.headers[COOKIES_SEEN_HEADER] = "some" if "Cookie" in request.headers else "none"
        return refused

    def page_of(self, context: FrontChannelContext | None, parents: tuple[str, ...] = ()) -> web.Response:
        """Return the page of a new context, as the response to an upstream provider's request.

        `parents` are further origins that may frame the page. Without a context the page is empty.
        """
        if context is None:
            return web.Response(text="", content_type="text/html", headers=self._page.headers(parents))
        try:
            return self._render_page(context, self._dependencies.seal_context(context), parents)
        except TooManyClients:
            return self._render_page(context, None, parents)  # without a URL the page cannot report

    def refuse(self) -> web.Response:
        """Count and return the 400 for an invalid page. Its headers let a frame load it, so that no parent waits."""
        self._dependencies.counts.on_page_refused()
        text = "This address is not valid, or not any more.\n"
        return web.Response(status=400, text=text, headers=self._page.headers(()))

    async def post_report(self, request: web.Request) -> web.Response:
        """Count the results that a page reports. Only the first report of a context counts."""
        counts = self._dependencies.counts
        opened = self._dependencies.open_context(request.match_info["context"])
        if opened is None:
            counts.on_refused_report()
            raise web.HTTPForbidden
        if opened.id in self._reported_ids:
            counts.on_repeated_report()
            return web.Response(status=204)
        if not opened.context.clients:  # the page of such a context sends no reports
            return web.Response(status=204)
        plan = self._plan_page(opened.context, exclusive_key=opened.exclusive_key, record=False)
        try:
            body = await read_body(request, self._limits)
        except (Refusal, web.HTTPException):
            counts.on_refused_report()
            raise
        report = read_report(body, len(plan.asked))
        if report is None:
            counts.on_refused_report()
            raise web.HTTPBadRequest
        if opened.id in self._reported_ids:  # another report arrived during the read
            counts.on_repeated_report()
            return web.Response(status=204)
        self._reported_ids[opened.id] = None
        if len(self._reported_ids) > self._max_reported:
            self._reported_ids.popitem(last=False)
        reported = zip(plan.asked, report.results, strict=True)
        results = [(client.client_id, REACH[result]) for client, result in reported]
        results += [(client.client_id, BrowserReach.UNREACHABLE) for client in plan.unasked]
        counts.on_report(report.end, opened.context.iss, results)
        return web.Response(status=204)

    def _render_page(
        self,
        context: FrontChannelContext,
        sealed: str | None,
        parents: tuple[str, ...] = (),
        *,
        exclusive_key: bool = False,
    ) -> web.Response:
        """Return the page that requests the clients of a context. With `sealed`, its script sends a report."""
        settings = self._dependencies.settings_of(context.iss)
        if settings is None:
            return self.refuse()
        settings = settings.model_copy(update={"parents": (*settings.parents, *parents)})
        plan = self._plan_page(context, exclusive_key=exclusive_key, record=True)
        report = None
        if context.clients:  # identity servers test for pages with a context without clients
            client_ids = [client.client_id for client in plan.asked] + [client.client_id for client in plan.unasked]
            self._dependencies.counts.on_page_shown(context.iss, client_ids)
            if sealed is not None:
                report = settings.path + PAGE_PATH.format(context=sealed)
        text = self._page.render(plan, settings, report)
        headers = self._page.headers(settings.origins, plan.asked)
        return web.Response(text=text, content_type="text/html", charset="utf-8", headers=headers)

    def _plan_page(self, context: FrontChannelContext, *, exclusive_key: bool, record: bool) -> PagePlan:
        checked = self._dependencies.supplied.check_context(context, exclusive_key=exclusive_key, record=record)
        return plan_page(checked, self._dependencies.registry())
