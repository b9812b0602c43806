"""Defines `Feature`, the declaration of an optional part of notifier.

`notifier.features` lists the features. `notifier.service` and `notifier.cli` apply the list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, TypeAlias

from notifier.configuration.configured_feature import ConfiguredFeature

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Collection
    from contextlib import AbstractAsyncContextManager

    from aiohttp import web
    from prometheus_client import Metric

    from notifier.configuration.live_configuration import LiveConfiguration
    from notifier.configuration.loading import LoadedConfiguration
    from notifier.delivery.facts import Observer
    from notifier.delivery.ports import Channel, ChannelTools
    from notifier.messages.replacements import SourceReader
    from notifier.model.client import Client, ClientKey
    from notifier.model.errors import InputIssue
    from notifier.model.front_channel import FrontChannelContext
    from notifier.model.message import Depth
    from notifier.model.trouble import Trouble
    from notifier.network.http.issuer_documents import DocumentReader
    from notifier.network.listeners.authorization import AuthenticateBearer
    from notifier.operators.doctor.doctor import Check, Finding
    from notifier.operators.status.service_status import RelayState
    from notifier.operators.status.worker_requests import Act, RequestKind
    from notifier.publishing.event_requests import EventRequests
    from notifier.publishing.route_steps import OncePublisher
    from notifier.queues.queue_port import Queue
    from notifier.telemetry.client_series import Label

Page: TypeAlias = "Callable[[str, FrontChannelContext | None, tuple[str, ...]], web.Response]"
"""Returns the logout page of an issuer, which loads the front-channel URIs of the clients of a context.

Without a context the page loads none. The last argument lists the origins whose pages may frame this page.
"""


def late(name: str) -> Callable[..., Any]:
    """Return a function that imports the function or class `name` (`module:name`) at each call, and calls it.

    So a command imports only the features that it uses.
    """

    def call(*arguments: object) -> Any:
        return resolve_name(name)(*arguments)

    return call


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureContext:
    """The objects that a feature receives before the worker is constructed.

    `label_of` returns the metric label of a client. `requests` accepts the events of requests. `observe` receives
    facts. `page`: the logout page of an earlier feature, or an empty page. `once` publishes for senders that do not
    send again. `draining` is set when the worker stops.
    """

    live: LiveConfiguration
    queue: Queue
    label_of: Callable[[str, str], Label]
    requests: EventRequests
    observe: Observer
    page: Page
    once: OncePublisher
    draining: asyncio.Event


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """A constructed worker, for the features that show it to operators.

    `name`: the worker's name in `notifier status`. `state` returns the worker's state as JSON, with these clients.
    `states` yields the state of all clients with problems, split into documents of this many clients. `depths` returns
    the last measured number of messages in each queue. `canary` sends a client a logout token without effect and
    returns the findings. `published` yields (iss, kid, published) for each signing key whose issuer's JWK Set was read.
    """

    live: LiveConfiguration
    queue: Queue
    name: str
    state: Callable[[Collection[ClientKey]], bytes]
    states: Callable[[int], Iterator[bytes]]
    depths: Callable[[], Mapping[str, Depth]]
    canary: Callable[[Client], Awaitable[Sequence[Finding]]]
    published: Callable[[], Iterable[tuple[str, str, bool]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureRuntime:
    """The objects that a feature adds to one worker.

    `api` and `pages`: routes of the API and of the web listener. `observe` receives the facts of deliveries.
    `families` returns metrics at a scrape. `readers` parse the messages of sources, by source name. `list_sources`
    returns the names of the configured sources, whose counters start at zero. `acts` execute requests of other workers,
    by request name. `page`: the logout page. `authenticate_bearer` accepts bearer tokens of
    the API that are not in its tokens file. `relays` returns the states of the relays.
    `stays_ready` returns whether the worker is needed while only its queue is unreachable, so that it must stay ready.
    `troubles` returns the current problems. `once` publishes for senders that do not send again. `lifespan` is entered
    before the listeners open, and left after the drain.
    """

    api: Iterable[web.RouteDef] = ()
    pages: Iterable[web.RouteDef] = ()
    observe: Observer | None = None
    families: Callable[[], Iterable[Metric]] = tuple
    readers: Mapping[str, SourceReader] = field(default_factory=dict)
    list_sources: Callable[[], Iterable[str]] = tuple
    acts: Mapping[RequestKind, Act] = field(default_factory=dict)
    page: Page | None = None
    authenticate_bearer: AuthenticateBearer | None = None
    relays: Callable[[], Sequence[RelayState]] = tuple
    stays_ready: Callable[[], bool] = lambda: False
    troubles: Callable[[], Iterable[Trouble]] = tuple
    once: OncePublisher | None = None
    lifespan: AbstractAsyncContextManager[object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureReport:
    """The output of `notifier check` about a feature: members of the JSON, lines of the text, and warnings."""

    members: Mapping[str, Any] = field(default_factory=dict)
    lines: Sequence[str] = ()
    warnings: Sequence[InputIssue] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature(ConfiguredFeature):
    """An optional part of notifier. Each member declares an addition.

    `run` returns the
    additions to one worker, before the worker is constructed. `operate` returns the additions that show the constructed
    worker to operators, without `readers` and `page`. `checks` returns the network checks of `notifier doctor`.
    `report` returns the output of `notifier check`. `find_remote_issues` returns configuration errors that only other
    servers can find. `notifier check --offline` does not call it. `channels`: the classes of further channels by which
    clients are notified, by the kinds that `Client.channel` names. `commands`: for each command its name, its module,
    and the first line of its help. `schemas`: the JSON Schemas for `notifier schema`, by document.
    """

    run: Callable[[FeatureContext], FeatureRuntime] = lambda _context: FeatureRuntime()
    operate: Callable[[WorkerView], FeatureRuntime] = lambda _view: FeatureRuntime()
    checks: Callable[[LoadedConfiguration, DocumentReader], Iterable[Check]] = lambda _loaded, _reader: ()
    report: Callable[[LoadedConfiguration], FeatureReport] = lambda _loaded: FeatureReport()
    find_remote_issues: Callable[[LoadedConfiguration], Sequence[InputIssue]] = lambda _loaded: ()
    channels: Mapping[str, Callable[[ChannelTools], Channel]] = field(default_factory=dict)
    commands: Sequence[tuple[str, str, str]] = ()
    schemas: Mapping[str, Callable[[], dict[str, Any]]] = field(default_factory=dict)
