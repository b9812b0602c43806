"""Serve `POST /v1/sign-outs`: publish an event, and return the URL of the front-channel page for the user's browser.

The event is published as by `POST /v1/events`, independently of the page. A request with too many clients for a page is
refused before anything is published.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Annotated, Any, NotRequired

from aiohttp import web
from pydantic import Field
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from notifier.features.browsers.front_channel_context import CONTEXT_LIFETIME_SECONDS, TooManyClients, seal_context
from notifier.features.browsers.supplied_addresses import SuppliedAddresses
from notifier.features.browsers.web_keys import PageKeys
from notifier.features.browsers.web_settings import WebIssuerSettings
from notifier.messages.event_clients import resolve_aliases
from notifier.model.errors import InputIssue
from notifier.model.front_channel import FrontChannelContext, create_page_context
from notifier.model.moment import format_moment
from notifier.model.session_ended import SessionEnded
from notifier.network.listeners.openapi import OperationDescription
from notifier.network.listeners.operation import MomentText, to_answer
from notifier.network.listeners.problem import Refusal, problem_response
from notifier.publishing.event_requests import BODY, PROBLEMS, QUERY, EventIdText, EventRequests

_MAX_SEALED_CLIENTS = 4000  # more do not fit into a URL; the attempt to seal 100,000 blocks the event loop for 1 s
_NOTE_DESCRIPTION = "Why there is no page, or not each client on it that has an address. Or as for events."


class FrontChannelDocument(TypedDict):
    """The page that calls the front-channel clients."""

    url: Annotated[str, Field(json_schema_extra={"format": "uri"})]
    clients: Annotated[int, Field(ge=1, description="How many clients the page asks.")]
    until: Annotated[MomentText, Field(description="The page can be shown until then.")]


_FRONT_CHANNEL = Annotated[
    FrontChannelDocument | None,
    Field(description="The page for a hidden frame of the logged-out page. null: the browser need ask no client."),
]
_MEMBERS: Mapping[str, Any] = {
    "id": EventIdText,
    "front_channel": _FRONT_CHANNEL,
    "note": NotRequired[Annotated[str, Field(description=_NOTE_DESCRIPTION)]],
}
_POST_SIGN_OUT = OperationDescription(
    summary="Publish one event, and get the page by which the user's browser asks its front-channel clients.",
    scope="publish",
    query=QUERY,
    body=BODY,
    answers={
        200: to_answer("With wait: every back-channel delivery has its final result.", **_MEMBERS),
        202: to_answer("The event is durable. With wait: its results so far.", **_MEMBERS),
    },
    problems={**PROBLEMS, 400: f"{PROBLEMS[400]} Or it has too many clients for one page. Nothing was published."},
)


class SignOutRoutes:
    """Publishes events and returns their pages. `page_keys` returns None without keys for pages.

    `settings_of` returns the settings of an issuer's pages; None if it has no pages.
    """

    def __init__(
        self,
        requests: EventRequests,
        page_keys: Callable[[], PageKeys | None],
        settings_of: Callable[[str], WebIssuerSettings | None],
        supplied: SuppliedAddresses,
    ) -> None:
        self._requests = requests
        self._page_keys = page_keys
        self._settings_of = settings_of
        self._supplied = supplied

    def routes(self) -> Iterator[web.RouteDef]:
        """Return the route for the API's application."""
        yield web.post("/v1/sign-outs", self.post_sign_out)

    @_POST_SIGN_OUT
    async def post_sign_out(self, request: web.Request) -> web.Response:
        """Publish one event, and return its page's URL."""
        return await self._requests.take(request, self._create_page)

    def _create_page(self, event: SessionEnded) -> Mapping[str, object]:
        """Return the members `front_channel` and `note` of the response to the event. Raises Refusal."""
        registry = self._requests.sources.registry()
        event = resolve_aliases(event, registry)
        context = create_page_context(event, registry)
        if context is None:
            return {"front_channel": None}
        context, omission_note = self._supplied.check_event(context, event)
        notes = [] if omission_note is None else [omission_note]
        page, count, keys, settings = None, len(context.clients), self._page_keys(), self._settings_of(event.iss)
        if count and keys is not None and settings is not None:
            now = self._requests.sources.clock()
            sealed = _seal(context, keys, now)
            page = {"url": f"{settings.url}/front-channel/{sealed}", "clients": count, "until": _format_page_end(now)}
        elif count:
            missing = "no web.issuers" if keys is None else "no entry for this issuer under web.issuers"
            notes.append(f"the browser should ask {count} of its clients, but notifier's configuration has {missing}")
        members: dict[str, object] = {"front_channel": page}
        if notes:
            members["note"] = "; ".join(notes)
        return members


def _format_page_end(sealed_at: float) -> str:
    """Return the time at which a page expires, to the second as in Fernet."""
    whole_seconds = format_moment(float(int(sealed_at) + CONTEXT_LIFETIME_SECONDS))[: len("2030-01-01T00:00:00")]
    return f"{whole_seconds}Z"


def _seal(context: FrontChannelContext, keys: PageKeys, now: float) -> str:
    """Return the sealed context. Raises Refusal (400) if it has too many clients for a URL."""
    count = len(context.clients)
    with suppress(TooManyClients):
        if count <= _MAX_SEALED_CLIENTS:
            return seal_context(context, keys.keys_of(context.iss), now)
    text = (
        f"has {count} clients that the browser must ask, too many for the URL of one page; nothing was published:"
        " publish the event by POST /v1/events, or send each part of its clients as a separate event"
    )
    raise Refusal(problem_response(400, "One page cannot ask so many clients", mistakes=[InputIssue("clients", text)]))
