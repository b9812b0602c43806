"""Declares what a feature adds to notifier. `notifier.features` lists them; `service` and `cli` go over the list."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from notifier.configuration.configured_feature import ConfiguredFeature

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection
    from contextlib import AbstractAsyncContextManager

    from aiohttp import web
    from prometheus_client import Metric

    from notifier.configuration.live_configuration import LiveConfiguration
    from notifier.configuration.loading import LoadedConfiguration
    from notifier.delivery.facts import Observer
    from notifier.delivery.ports import SourceReader
    from notifier.model.client import Client, ClientKey
    from notifier.model.errors import InputIssue
    from notifier.model.front_channel import FrontChannelContext
    from notifier.model.message import Depth
    from notifier.network.http.issuer_documents import DocumentReader
    from notifier.network.listeners.authorization import AuthenticateBearer
    from notifier.operators.doctor.doctor import Check, Finding
    from notifier.operators.status.worker_requests import Act
    from notifier.queues.queue_port import Queue

NeedT = TypeVar("NeedT")
Page: TypeAlias = "Callable[[str, FrontChannelContext | None, tuple[str, ...]], web.Response]"
"""Answers a browser with the page of an issuer that asks the clients of a context, none for None.

Pages of these origins may be above it.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureContext:
    """What a feature of a worker receives before the worker is made. `needs`: by the name of each Protocol."""

    live: LiveConfiguration
    queue: Queue
    needs: Mapping[str, object] = field(default_factory=dict)

    def need(self, kind: Callable[..., NeedT]) -> NeedT:
        """Return the object for one of the needs that the feature lists."""
        return cast("NeedT", self.needs[kind.__name__])


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """The worker as its features for operators see it, once it is made.

    `name` is that of the worker in `notifier status`. `state` is the worker's state, with these clients; `states` has
    all that are in trouble, so many in each part. `depths` is what waited in the queues a moment ago. `canary` sends a
    client a token that ends nothing. `published` has each of our keys whose issuer's JWK Set was read: issuer, key ID,
    whether it is there.
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
    """A feature in one worker. Each member is something that the feature adds.

    `api` and `pages` are routes of the API and of the web listener, `families` metrics. `readers` read the messages of
    sources, by their name. `acts` carry out requests of other workers, by the name of the request.
    `authenticate_bearer` accepts bearer tokens of the API that are not in its tokens file. `lifespan` is entered before
    the listeners open, and left after the drain.
    """

    api: Iterable[web.RouteDef] = ()
    pages: Iterable[web.RouteDef] = ()
    observe: Observer | None = None
    families: Callable[[], Iterable[Metric]] = tuple
    readers: Mapping[str, SourceReader] = field(default_factory=dict)
    acts: Mapping[str, Act] = field(default_factory=dict)
    page: Page | None = None
    authenticate_bearer: AuthenticateBearer | None = None
    lifespan: AbstractAsyncContextManager[object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureReport:
    """What `notifier check` reports on a feature: members of its JSON, lines of its text, and warnings."""

    members: Mapping[str, Any] = field(default_factory=dict)
    lines: Sequence[str] = ()
    warnings: Sequence[InputIssue] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature(ConfiguredFeature):
    """A feature. Each member is what it adds.

    `run` makes it for one worker, before that worker is constructed. `needs` names the Protocols of its folder, each as
    `module:Class`, whose objects it takes from the service. `operate` makes the part that shows the
    constructed worker to operators; `readers` and a `page` have no effect there. `checks` are the doctor's, over the
    network. `asked` returns mistakes that other servers find; `notifier check --offline` skips it. `commands` are
    names, the modules that hold them, and the lines that begin their help. `schemas` are those of documents, for
    `notifier schema`.
    """

    needs: Sequence[str] = ()
    run: Callable[[FeatureContext], FeatureRuntime] = lambda _given: FeatureRuntime()
    operate: Callable[[WorkerView], FeatureRuntime] = lambda _view: FeatureRuntime()
    checks: Callable[[LoadedConfiguration, DocumentReader], Iterable[Check]] = lambda _loaded, _reader: ()
    checked: Callable[[LoadedConfiguration], FeatureReport] = lambda _loaded: FeatureReport()
    asked: Callable[[LoadedConfiguration], Sequence[InputIssue]] = lambda _loaded: ()
    commands: Sequence[tuple[str, str, str]] = ()
    schemas: Mapping[str, Callable[[], dict[str, Any]]] = field(default_factory=dict)
