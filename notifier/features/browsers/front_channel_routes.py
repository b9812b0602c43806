"""Serve `GET /front-channel/{context}`, the page that requests the clients of an ended session, and its `POST`.

By the POST, the page's script reports the results, which change only metrics. A page depends on its context only, and
nothing is stored. Anyone who has a page's URL can open it for ten minutes in a frame of the issuer's pages. This is
harmless, since the session has already ended.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator

from aiohttp import web

from notifier.features.browsers.front_channel_context import OpenedContext, TooManyClients
from notifier.features.browsers.front_channel_counts import (
    MAX_REPORT_BYTES,
    REACH,
    BrowserReach,
    FrontChannelCounts,
    read_report,
)
from notifier.features.browsers.front_channel_page import FrontChannelPage
from notifier.features.browsers.supplied_addresses import SuppliedAddresses
from notifier.features.browsers.web_settings import WebIssuerSettings
from notifier.model.front_channel import FrontChannelContext, PagePlan, plan_page
from notifier.model.record import record
from notifier.model.registry import Registry
from notifier.model.shared_resources import shared_bound
from notifier.network.listeners.problem import Refusal
from notifier.publishing.route_steps import ApiLimits, read_body

PAGE_PATH = "/front-channel/{context}"
COOKIES_SEEN_HEADER = "Notifier-Cookies"
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
