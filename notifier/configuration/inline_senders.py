"""Finds settings that make events useless, for the warnings of `notifier check` and the log.

An inline address is the logout URI of a client in an event instead of the registry. `issuers[…].publishers` lists the
senders whose events, and whose inline addresses, are accepted for the issuer.
"""

from collections.abc import Collection, Iterator, Sequence

from notifier.model.errors import InputIssue
from notifier.model.front_channel import is_on_page
from notifier.model.record import record
from notifier.model.registry import Registry
from notifier.settings.api_tokens import ApiToken
from notifier.settings.service_settings import Settings

_NO_CLIENTS = "the registry has no client of this issuer with an address"


@record
class Sender:
    """A sender of events. `name`: its entry in `publishers`. `issuers`: the issuers whose events it may send.

    `authenticated`: the sender's name is verified. `trusted`: the inline addresses of the sender are accepted even if
    `publishers` is not set. `has_addresses`: the sender's events contain inline addresses.
    """

    name: str
    title: str
    issuers: Collection[str]
    authenticated: bool = True
    trusted: bool = False
    has_addresses: bool = False


def list_token_senders(tokens: Sequence[ApiToken]) -> Iterator[Sender]:
    """Yield each API token that may publish, as a sender."""
    for token in tokens:
        if "publish" in token.scopes:
            yield Sender(name=token.name, title=f"API token {token.name}", issuers=token.issuers or (), trusted=True)


def find_ignored_members(settings: Settings, registry: Registry, senders: Sequence[Sender]) -> Iterator[InputIssue]:
    """Yield warnings for issuers whose events have inline addresses, or need `email`, that no publisher may send."""
    yield from _find_ignored_addresses(settings, registry, senders)
    yield from _find_ignored_emails(settings, registry, senders)


def _find_ignored_addresses(settings: Settings, registry: Registry, senders: Sequence[Sender]) -> Iterator[InputIssue]:
    """Yield warnings for issuers with neither `publishers` nor clients with an address: inline addresses are ignored.

    Each sender of inline addresses causes a warning. Without such a sender, the issuer causes a warning, unless it has
    a trusted sender, or the queue is embedded and there is no API.
    """
    if settings.registry.inline != "publishers":
        return
    for iss, issuer in settings.issuers.items():
        if issuer.publishers is not None or _has_clients(iss, settings, registry):
            continue
        path = f'issuers["{iss}"].publishers'
        issuer_senders = [sender for sender in senders if iss in sender.issuers]
        address_senders = [sender for sender in issuer_senders if sender.has_addresses]
        for sender in address_senders:
            if sender.authenticated:
                remedy = f"write publishers: [{sender.name}]"
            else:
                remedy = (
                    "write publishers: [USER], the user_id of its messages; if they have none, registry.inline: allow"
                )
            yield InputIssue(path, f"{_NO_CLIENTS}, and those that {sender.title} brings do not count: {remedy}")
        if not (address_senders or _may_be_trusted(settings, issuer_senders)):
            text = "an event's own address counts only from the identity server: name its user or API token here"
            yield InputIssue(path, f"{_NO_CLIENTS}, and {text} (registry.inline)")


def _find_ignored_emails(settings: Settings, registry: Registry, senders: Sequence[Sender]) -> Iterator[InputIssue]:
    """Yield a warning for each issuer with a client whose channel needs `email`, if no event's `email` can count.

    It counts from the publishers whose inline addresses are accepted.
    """
    inline = settings.registry.inline
    for iss, issuer in settings.issuers.items():
        clients = registry.clients_of(iss).values()
        client_id = next((each.client_id for each in clients if each.channel and each.channel.needs_email), None)
        listed = inline == "publishers" and (
            issuer.publishers is not None
            or _may_be_trusted(settings, [each for each in senders if iss in each.issuers])
        )
        if client_id is None or inline == "allow" or listed:
            continue
        path, text = f'issuers["{iss}"].publishers', "`email` counts only from the identity server: name its user here"
        if inline == "deny":
            path, text = "registry.inline", "is deny, so `email` of no event counts: write publishers"
        yield InputIssue(path, f"{text}; otherwise client {client_id!r} gets only dead letters no_email")


def _may_be_trusted(settings: Settings, senders: Sequence[Sender]) -> bool:
    """Return True if some sender's inline addresses are accepted even if `publishers` is not set."""
    is_embedded_only = settings.queue.sqlite_file is not None and settings.api is None
    return is_embedded_only or any(sender.trusted for sender in senders)


def find_unlisted_senders(settings: Settings, senders: Sequence[Sender]) -> Iterator[InputIssue]:
    """Yield a warning for each sender configured for an issuer whose `publishers` do not list it."""
    for iss, issuer in settings.issuers.items():
        if issuer.publishers is None:
            continue
        for sender in senders:
            if sender.authenticated and iss in sender.issuers and sender.name not in issuer.publishers:
                text = (
                    f"does not name {sender.name}, so every event of the {sender.title} is refused: add {sender.name}"
                )
                yield InputIssue(f'issuers["{iss}"].publishers', text)


def find_unlisted_user(settings: Settings) -> dict[str, InputIssue]:
    """Return, by issuer, a warning if its `publishers` do not list the queue user of `notifier publish`.

    The worker refuses the events of `notifier publish` for these issuers.
    """
    user = settings.queue.user
    if user is not None:
        text = f"does not name {user}, the user of the queue: every event of `notifier publish` is refused; add {user}"
    elif settings.queue.sqlite_file is None:
        text = "is set, and with auth=external no event of `notifier publish` has a user_id: each is refused"
    else:
        text = "is set, and no event in the embedded queue has a user_id: each of `notifier publish` is refused"
    alternative = "publish over the API with a token that publishers names"
    return {
        iss: InputIssue(f'issuers["{iss}"].publishers', f"{text}, or {alternative}")
        for iss, issuer in settings.issuers.items()
        if issuer.publishers is not None and user not in issuer.publishers
    }


def _has_clients(iss: str, settings: Settings, registry: Registry) -> bool:
    """Return True if the registry has a client of the issuer with an address, or a source may list such a client."""
    remote_sources = (source for source in settings.registry.all_sources if source.file is None)
    if any(iss in source.permitted_issuers(tuple(settings.issuers)) for source in remote_sources):
        return True
    return any(client.logout_uri is not None or is_on_page(client) for client in registry.clients_of(iss).values())
