"""Refreshes the registry sources of a worker: connects the live configuration with `RegistryRefresh`."""

import asyncio
import random
import time
from functools import partial

from notifier.configuration.clients.answers import Cache
from notifier.configuration.clients.client_rows import AnswerResult, SourceAnswer
from notifier.configuration.clients.registry_refresh import RefreshedSource, RegistryRefresh
from notifier.configuration.clients.source_reading import SourceReading
from notifier.configuration.configured_feature import reader_builder
from notifier.configuration.live_configuration import LiveConfiguration
from notifier.delivery.facts import Deferred, FactHandlers
from notifier.model.outcome import Cause
from notifier.model.own_thread import run_in_thread
from notifier.settings.registry_settings import RegistrySourceSettings
from notifier.telemetry.audit import write_audit


class RegistrySources:
    """The registry sources of a worker. The lock `reloading` is held while the registry is replaced."""

    def __init__(self, live: LiveConfiguration, reloading: asyncio.Lock) -> None:
        self._live = live
        self._reloading = reloading
        self._readings: dict[str, tuple[RegistrySourceSettings, SourceReading]] = {}
        self._requested_refresh: asyncio.Task[object] | None = None
        self.refresh = RegistryRefresh(
            self._take_answer, clock=time.time, monotonic=time.monotonic, jitter=random.random
        )
        self.observe = FactHandlers({Deferred: self._on_deferred})
        """Handlers that read the sources again when a delivery's client is unknown."""
        self.sync()

    def sync(self) -> None:
        """Refresh exactly the sources of the current configuration from now on."""
        registry = self._live.current.settings.registry
        cache, build_reader = Cache(registry.cache), reader_builder(self._live.current.features)
        old_readings, self._readings = self._readings, {}
        refreshed_sources = []
        for source in registry.all_sources:
            if source.file is not None:
                continue
            old_settings, reading = old_readings.get(source.source_name, (None, None))
            if reading is None or old_settings != source:
                reading = SourceReading(source, build_reader, cache, time.time)
            self._readings[source.source_name] = source, reading
            refreshed_sources.append(
                RefreshedSource(
                    name=source.source_name,
                    kind=source.kind,
                    every=source.every,
                    issuer=source.issuer,
                    reading=reading,
                    last=self._live.answers.get(source),
                )
            )
        self.refresh.watch(refreshed_sources)

    def request_refresh(self) -> None:
        """Start reading all sources now, without waiting for the results."""
        self._requested_refresh = asyncio.create_task(self.refresh.refresh(accepted_by=None))

    def drop(self, name: str, who: str) -> str | None:
        """Discard all answers of the source at its next reading. Return an error if the source is unknown."""
        problem = self.refresh.drop(name, dropped_by=who)
        if problem is None:
            write_audit("registry_source_dropped", who=who, source=name)
        return problem

    def _on_deferred(self, fact: Deferred) -> None:
        if fact.cause is Cause.UNKNOWN:
            self.refresh.on_unknown_client(fact.iss)

    async def _take_answer(self, name: str, answer: SourceAnswer | None, accepted_by: str | None) -> AnswerResult:
        async with self._reloading:
            take_answer = partial(self._live.take_answer, name, answer, accepted_by=accepted_by)
            return await run_in_thread(take_answer, "answer of a source")
