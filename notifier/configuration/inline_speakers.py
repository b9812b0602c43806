"""Warns of what `publishers` leaves unheard: addresses that no event may say, and senders that it does not name."""

from collections.abc import Iterator, Sequence

from notifier.model.api_token import ApiToken
from notifier.model.errors import Mistake
from notifier.model.front_channel import is_on_page
from notifier.model.registry import Registry
from notifier.settings.service_settings import Settings

_ADDRESS = "backchannel_logout_uri"
_RELIES = "the registry has no client of this issuer with an address"


def unheard_addresses(settings: Settings, registry: Registry, tokens: Sequence[ApiToken] | None) -> Iterator[Mistake]:
    """Yield a warning for each issuer that relies on what events say of clients, and names no `publishers`."""
    if settings.registry.inline != "publishers":
        return
    for iss, issuer in settings.issuers.items():
        if issuer.publishers is not None or _has_clients(iss, settings, registry):
            continue
        path = f'issuers["{iss}"].publishers'
        named = [
            name for name, source in registry.sources.items() if iss in source.speaks_for and _brings(registry, name)
        ]
        for name in named:
            if settings.sources[name].http is not None:
                way = f"write publishers: [{name}]"
            else:
                way = "write publishers: [USER], the user_id of its messages; if they have none, registry.inline: allow"
            yield Mistake(path, f"{_RELIES}, and those that source {name} brings do not count: {way}")
        if not named and not _is_vouched_for(iss, settings, tokens or ()):
            text = "an event's own address counts only from the identity server: name its user or API token here"
            yield Mistake(path, f"{_RELIES}, and {text} (registry.inline)")


def unnamed_speakers(settings: Settings, registry: Registry, tokens: Sequence[ApiToken] | None) -> Iterator[Mistake]:
    """Yield a warning for each sender that is meant to speak for an issuer whose `publishers` do not name it."""
    for iss, issuer in settings.issuers.items():
        if issuer.publishers is None:
            continue
        senders = {
            f"source {name}": name
            for name, source in registry.sources.items()
            if settings.sources[name].http is not None and iss in source.speaks_for
        }
        senders |= {
            f"API token {token.name}": token.name
            for token in tokens or ()
            if "publish" in token.scopes and iss in (token.issuers or ())
        }
        for sender, name in senders.items():
            if name not in issuer.publishers:
                text = f"does not name {name}, so every event of the {sender} is refused: add {name}"
                yield Mistake(f'issuers["{iss}"].publishers', text)


def _has_clients(iss: str, settings: Settings, registry: Registry) -> bool:
    """True if the registry says how to reach somebody. A list that is read from a server may do so yet."""
    lists = (source for source in settings.registry.all_sources if source.file is None)
    if any(iss in source.speaks_for(tuple(settings.issuers)) for source in lists):
        return True
    return any(client.told_at is not None or is_on_page(client) for client in registry.clients_of(iss).values())


def _brings(registry: Registry, name: str) -> bool:
    clients = registry.sources[name].members.get("clients")
    return clients is not None and _ADDRESS in clients.text


def _is_vouched_for(iss: str, settings: Settings, tokens: Sequence[ApiToken]) -> bool:
    """True if events come whose addresses count without `publishers`: by a bound token, or by the queue's file."""
    bound = any("publish" in token.scopes and iss in (token.issuers or ()) for token in tokens)
    return bound or (settings.queue.sqlite_file is not None and settings.api is None)
