"""Serve `GET /front-channel/{context}`: the page that requests the clients of an ended session. `POST`: its report.

A page depends on its context only: nothing is stored. Anyone with a page's URL can open it for ten minutes, in a frame
of the issuer's own pages, which ends a session that has ended already. A report only counts in a metric.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator

from aiohttp import web

from notifier.features.browsers.brought_addresses import BroughtAddresses
from notifier.features.browsers.front_channel_context import OpenedContext, TooManyClients
from notifier.features.browsers.front_channel_counts import (
    LARGEST_REPORT,
    REACH,
    BrowserReach,
    FrontChannelCounts,
    read_report,
)
from notifier.features.browsers.front_channel_page import FrontChannelPage, PageRules
from notifier.model.front_channel import FrontChannelContext, PagePlan, page_plan
from notifier.model.frozen import frozen, replace
from notifier.model.registry import Registry
from notifier.network.listeners.problem import Refusal
from notifier.publishing.route_steps import ApiLimits, read_body

PATH = "/front-channel/{context}"
SAW_COOKIE = "Notifier-Cookies"
"""The header of a refused page that reports whether the proxy passed cookies on: some, or none."""
REPORTS = 10_000  # of one worker; they expire within LIFETIME


@frozen
class PageAccess:
    """What the routes need, fetched at each request. `rules` returns None if the issuer has no pages.

    `opened` returns None for an invalid or expired context. `sealed` raises TooManyClients.
    """

    opened: Callable[[str], OpenedContext | None]
    sealed: Callable[[FrontChannelContext], str]
    rules: Callable[[str], PageRules | None]
    registry: Callable[[], Registry]
    brought: BroughtAddresses
    counts: FrontChannelCounts


class FrontChannelRoutes:
    """The routes, and the answer that is a page."""

    def __init__(self, access: PageAccess, *, remembered: int = REPORTS) -> None:
        """`remembered`: how many reported contexts are remembered."""
        self._access = access
        self._remembered = remembered
        self._page = FrontChannelPage()
        self._reported: OrderedDict[str, None] = OrderedDict()
        self._limits = ApiLimits(max_event=LARGEST_REPORT)

    def routes(self) -> Iterator[web.RouteDef]:
        """The routes, for the application of the web listener."""
        yield web.get(PATH, self.get_page, allow_head=False)
        yield web.post(PATH, self.post_report)

    async def get_page(self, request: web.Request) -> web.Response:
        """Answer with the page of a context."""
        sealed = request.match_info["context"]
        opened = self._access.opened(sealed)
        if opened is not None:
            return self._answer(opened.context, sealed, own_key=opened.own_key)
        refused = self.refused()
        refused.headers[SAW_COOKIE] = "some" if "Cookie" in request.headers else "none"
        return refused

    def page_of(self, context: FrontChannelContext | None, parents: tuple[str, ...] = ()) -> web.Response:
        """Return the page of a new context, for an upstream provider's request.

        `parents` may frame it too. Without a context it is a page without clients.
        """
        if context is None:
            return web.Response(text="", content_type="text/html", headers=self._page.headers(parents))
        if self._access.rules(context.iss) is None:
            return self.refused()
        try:
            return self._answer(context, self._access.sealed(context), parents)
        except TooManyClients:
            return self._answer(context, None, parents)  # it fits in no URL, so there is nowhere to report to

    def refused(self) -> web.Response:
        """Answer that the page does not exist. A frame with this answer loads at once."""
        self._access.counts.page_refused()
        text = "This address is not valid, or not any more.\n"
        return web.Response(status=400, text=text, headers=self._page.headers(()))

    async def post_report(self, request: web.Request) -> web.Response:
        """Count a page's report, once for each context."""
        counts = self._access.counts
        opened = self._access.opened(request.match_info["context"])
        if opened is None:
            counts.report_refused()
            raise web.HTTPForbidden
        if opened.id in self._reported:
            counts.report_repeated()
            return web.Response(status=204)
        if not opened.context.clients:  # a context without clients has no reporting page
            return web.Response(status=204)
        plan = self._plan(opened.context, own_key=opened.own_key, told=False)
        try:
            body = await read_body(request, self._limits)
        except (Refusal, web.HTTPException):
            counts.report_refused()
            raise
        report = read_report(body, len(plan.asked))
        if report is None:
            counts.report_refused()
            raise web.HTTPBadRequest
        if opened.id in self._reported:  # another report came during the read
            counts.report_repeated()
            return web.Response(status=204)
        self._remember(opened.id)
        results = zip(plan.asked, report.results, strict=True)
        reached = [(asked.client_id, REACH[result]) for asked, result in results]
        reached += [(client.client_id, BrowserReach.UNREACHABLE) for client in plan.unasked]
        counts.reported(report.end, opened.context.iss, reached)
        return web.Response(status=204)

    def _answer(
        self, context: FrontChannelContext, sealed: str | None, parents: tuple[str, ...] = (), *, own_key: bool = False
    ) -> web.Response:
        rules = self._access.rules(context.iss)
        if rules is None:
            return self.refused()
        rules = replace(rules, origins=tuple(dict.fromkeys((*rules.origins, *parents))))
        plan = self._plan(context, own_key=own_key, told=True)
        report = None
        if context.clients:  # a page of no client is an identity server's question whether there are pages
            self._access.counts.page_shown(context.iss, _clients_of(plan))
            report = None if sealed is None else rules.path + PATH.format(context=sealed)
        text = self._page.document(plan, rules, report)
        headers = self._page.headers(rules.origins, plan.asked)
        return web.Response(text=text, content_type="text/html", charset="utf-8", headers=headers)

    def _plan(self, context: FrontChannelContext, *, own_key: bool, told: bool) -> PagePlan:
        counting = self._access.brought.of_context(context, own_key=own_key, told=told)
        return page_plan(counting, self._access.registry())

    def _remember(self, context_id: str) -> None:
        self._reported[context_id] = None
        if len(self._reported) > self._remembered:
            self._reported.popitem(last=False)


def _clients_of(plan: PagePlan) -> list[str]:
    return [*(client.client_id for client in plan.asked), *(client.client_id for client in plan.unasked)]
