"""Ends a command that found nothing for an unknown client, so that a typing error does not look like good news."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import typer
import uvloop

from notifier.configuration.configured_feature import ConfiguredFeature
from notifier.model.nearest import suggest_client
from notifier.model.printable import printable
from notifier.model.registry import Registry
from notifier.operators.deliveries.dead_letter_filter import DeadLetterFilter
from notifier.operators.deliveries.repair_pass import find_messages
from notifier.operators.deliveries.waiting_filter import WaitingFilter
from notifier.operators.terminal.output import say
from notifier.operators.terminal.queue_access import open_queue
from notifier.operators.terminal.suggestions import load_known_registry
from notifier.queues.queue_port import Queue
from notifier.settings.queue_settings import QueueSettings
from notifier.settings.service_settings import Settings


def end_if_unknown(
    config: Path | None, features: Sequence[ConfiguredFeature], client_id: str | None, iss: str | None
) -> None:
    """Exit with 1 if the client is neither in the registry nor in dead letters or pending deliveries.

    Returns if events may register clients inline, if clients of a source are unknown here, or if the configuration
    cannot be read. Raises QueueError.
    """
    if client_id is None or (known := load_known_registry(config, features)) is None:
        return
    settings, registry = known.settings, known.registry
    issuers = tuple(settings.issuers) if iss is None else (iss,)
    if any(_is_registered(registry, issuer, client_id) for issuer in issuers):
        return
    if uvloop.run(_is_in_queue(settings.queue, client_id, iss)):
        return
    hints = (suggest_client(issuer, client_id, registry) for issuer in issuers)
    text = next((hint.text for hint in hints if hint is not None), "`notifier clients` lists those of the registry")
    say(
        printable(
            f"notifier: unknown client {client_id}: neither the registry, the dead letters nor the pending"
            f" deliveries have it; {text}"
        ),
        err=True,
    )
    if known.unread:
        say(f"the clients of {', '.join(known.unread)} are unknown to this command", err=True)
    elif not _events_bring_clients(settings, issuers):
        raise typer.Exit(1)


def _is_registered(registry: Registry, iss: str, client_id: str) -> bool:
    """Return True if the registry has the client under a name or alias, or skipped it because of an error."""
    return registry.resolve(iss, client_id, None) is not None or registry.why_left_out(iss, client_id) is not None


async def _is_in_queue(settings: QueueSettings, client_id: str, iss: str | None) -> bool:
    async with open_queue(settings, opening=False) as queue:
        return any(await asyncio.gather(_is_waiting(queue, client_id, iss), _is_dead(queue, client_id, iss)))


async def _is_waiting(queue: Queue, client_id: str, iss: str | None) -> bool:
    async with aclosing(find_messages(queue.waiting(), WaitingFilter(client_id=client_id, iss=iss))) as deliveries:
        async for _ in deliveries:
            return True
    return False


async def _is_dead(queue: Queue, client_id: str, iss: str | None) -> bool:
    async with aclosing(
        find_messages(queue.dead_letters(), DeadLetterFilter(client_id=client_id, iss=iss))
    ) as dead_letters:
        async for _ in dead_letters:
            return True
    return False


def _events_bring_clients(settings: Settings, issuers: tuple[str, ...]) -> bool:
    """Return True if an event's inline address may count, so that unregistered clients can be notified."""
    if settings.registry.inline != "publishers":
        return settings.registry.inline == "allow"
    vouched = settings.api is not None and settings.api.tokens_file is not None
    return vouched or any(iss in settings.issuers and settings.issuers[iss].publishers for iss in issuers)
