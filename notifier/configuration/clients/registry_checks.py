"""Checks a whole registry: unusable algorithms, doubtful registrations, and reloads that lose too many clients."""

from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import filterfalse
from pathlib import Path

from notifier.configuration.clients.client_rows import RowIssues
from notifier.model.client import Algorithm, Client, TlsFiles
from notifier.model.errors import InputIssue
from notifier.model.presets import find_preset_doubt
from notifier.model.printable import counted
from notifier.model.registry import Followers, InlineRule, Registry
from notifier.network.http.pem_files import describe_expired, find_client_issues, read_expiries_in, read_expiry_in

MAX_WARNED_CLIENTS = 5  # clients in one warning
AlgorithmsOf = Callable[[str], frozenset[Algorithm]]
"""Returns the algorithms that an issuer's keys can sign with."""

_KEY_OF_ALGORITHM = {
    Algorithm.ES256: "a P-256 key",
    Algorithm.ES384: "a P-384 key",
    Algorithm.ES512: "a P-521 key",
    Algorithm.EDDSA: "an Ed25519 key",
    Algorithm.ED25519: "an Ed25519 key",
}


def find_unsignable(registry: Registry, algorithms_of: AlgorithmsOf) -> Sequence[InputIssue]:
    """Return an error for each client that gets signatures whose algorithm no key of its issuer can sign with."""
    mistakes = RowIssues()
    for iss, clients in registry.clients.items():
        possible = algorithms_of(iss)
        for client in clients.values():
            if client.token.alg not in possible and is_sent_signatures(client):
                path = f"client {client.client_id!r} of {iss}"
                mistakes.append(InputIssue(path, explain_unsignable(client.token.alg, iss, possible)))
                mistakes.bound()
    return mistakes.abridged()


def is_sent_signatures(client: Client) -> bool:
    """Return True if the client receives logout tokens, or other requests that the issuer's keys sign."""
    return client.backchannel_logout_uri is not None if client.channel is None else client.channel.signed


def explain_unsignable(alg: Algorithm, iss: str, possible: frozenset[Algorithm]) -> str:
    """Return why `alg` cannot be used, and the remedies. `possible`: the algorithms of the keys of the issuer."""
    names = ", ".join(name for name in Algorithm if name in possible)
    has = f"keys of its issuer can do only {names}" if names else "its issuer has no usable key"
    other = ", or register the client with id_token_signed_response_alg set to one of these" if names else ""
    key = _KEY_OF_ALGORITHM.get(alg, "an RSA key")
    return f'needs a token signed with {alg}, but {has}: add {key} to issuers["{iss}"].keys{other}'


def examine_tls_files(
    registry: Registry, now: float, reported: Collection[Path] = ()
) -> tuple[list[InputIssue], list[InputIssue]]:
    """Load the TLS files of each client. Return an error for unusable files, and a warning for expired certificates.

    Faults of `reported` files are left out. Files that several clients share are named once. Blocks on files: 1 ms for
    each set of files.
    """
    clients_by_files: dict[TlsFiles, list[str]] = {}
    for iss, clients in registry.clients.items():
        for client in clients.values():
            clients_by_files.setdefault(client.route.tls, []).append(f"client {client.client_id!r} of {iss}")
    faults, warnings = [], []
    for files, (first, *others) in clients_by_files.items():
        path = f"{first} (and {counted(len(others), 'other')})" if others else first
        if texts := find_client_issues(files, reported):
            faults.append(InputIssue(path, f"tls: {'; '.join(texts)}; until it is corrected, deliveries wait"))
        else:
            warnings += [InputIssue(path, f"tls: {text}") for text in _find_expired(files, now)]
    return faults, warnings


def _find_expired(files: TlsFiles, now: float) -> Iterator[str]:
    """Yield a text for notifier's certificate, if it has expired, and for authorities that all have."""
    expires_at = None if files.cert_file is None else read_expiry_in(files.cert_file)
    if expires_at is not None and expires_at < now:
        yield describe_expired(files.cert_file, expires_at) + ": servers that check it refuse requests; renew it"
    trusted = [] if files.ca_file is None else read_expiries_in(files.ca_file)
    if trusted and max(trusted) < now:
        yield f"each certificate of {files.ca_file} has expired: no server can be verified; renew them"


def find_preset_mismatches(registry: Registry) -> Iterator[InputIssue]:
    """Yield a warning for each issuer and kind of mismatch between a preset and the rest of a client's registration.

    The warning names the first MAX_WARNED_CLIENTS clients with this mismatch.
    """
    clients_by_mismatch: dict[tuple[str, tuple[str, str]], list[str]] = {}
    for iss, clients in registry.clients.items():
        for client in clients.values():
            mismatch = None if client.preset is None else find_preset_doubt(client)
            if mismatch is not None:
                clients_by_mismatch.setdefault((iss, mismatch), []).append(client.client_id)
    for (iss, (text, remedy)), client_ids in clients_by_mismatch.items():
        more = f" and {len(client_ids) - MAX_WARNED_CLIENTS:,} more" if len(client_ids) > MAX_WARNED_CLIENTS else ""
        names = ", ".join(repr(client_id[:60]) for client_id in client_ids[:MAX_WARNED_CLIENTS])
        yield InputIssue(f"client {names}{more} of {iss}", f"{text}; {remedy}")


def find_widely_accepted_tokens(registry: Registry) -> Iterator[InputIssue]:
    """Yield a warning for each client whose tokens another service might accept: `typ: JWT` and further audiences."""
    for iss in registry.issuers:
        for client in registry.clients_of(iss).values():
            if client.token.typ == "JWT" and client.token.audience:
                others = ", ".join(client.token.audience)
                text = f"its tokens have typ JWT and are for {others} too, which may believe them: leave one away"
                yield InputIssue(f"client {client.client_id!r} of {iss}", text)


MAX_UNCHECKED_LOSSES = 1  # so many clients may always be lost, if others remain
MIN_CLIENTS_PER_LOSS = 5  # at most one in five clients may be lost
MAX_NAMED_CLIENTS = 20  # lost clients that a message lists
_RULES: Sequence[InlineRule] = ("deny", "publishers", "allow")  # from the strictest


def find_excessive_loss(old: Registry, new: Registry, only: Container[tuple[str, str]] | None = None) -> str | None:
    """Return why the new registry must be refused, since it would make too many clients unreachable; otherwise None.

    `only`: check these clients (`iss`, `client_id`) only, such as the clients of one source.

    A client without a logout URI gets no notifications. A client that had no URI before counts only if its registration
    disappears, since events may contain its URI. A paused client is not lost, because its deliveries wait. A registry
    without any logout URI is also refused if it newly denies URIs in events.

    The followers of a removed client do not count: they are its further addresses. Nor do other followers hide a loss:
    the clients that follow none are also judged alone.
    """
    losses = find_lost_clients(old, new, only)
    for is_left_out in (lambda client: client.follows is not None, partial(_has_lost_leader, old, new)):
        before, after = [*filterfalse(is_left_out, _clients_of(old, only))], [*_clients_of(new, only)]
        removed, silenced = ([*filterfalse(is_left_out, clients)] for clients in losses)
        if (loss := _describe_excessive_loss(before, after, removed, silenced, old)) is not None:
            return loss
    if old.inline != "deny" and new.inline == "deny" and not any(map(_can_be_notified, _clients_of(new, only))):
        return "no client has a backchannel_logout_uri, and registry.inline denies events to bring one"
    return None


def _describe_excessive_loss(
    before: Sequence[Client],
    after: Sequence[Client],
    removed: Sequence[Client],
    silenced: Sequence[Client],
    old: Registry,
) -> str | None:
    count, lost = sum(map(_can_be_notified, before)), [*filter(_can_be_notified, removed), *silenced]
    if _is_too_many(len(lost), count) or (lost and not any(map(_can_be_notified, after))):
        how = f"{len(lost) - len(silenced)} gone, {len(silenced)} without backchannel_logout_uri"
        text = f"{len(lost)} of {count} clients with an address could not be notified any more ({how})"
        return f"{text}: {_join_names(lost, old)}"
    registered = len(before)
    if _is_too_many(len(removed), registered) or (removed and not after):
        return f"{len(removed)} of {registered} registered clients would be gone: {_join_names(removed, old)}"
    return None


def find_lost_clients(
    old: Registry, new: Registry, only: Container[tuple[str, str]] | None = None
) -> tuple[Sequence[Client], Sequence[Client]]:
    """Return the removed clients, and the remaining clients that have lost their address.

    `only`: check these clients (`iss`, `client_id`) only.
    """
    removed, silenced = [], []
    for client in _clients_of(old, only):
        new_client = new.clients_of(client.iss).get(client.client_id)
        if new_client is None:
            removed.append(client)
        elif new_client is not client and not _can_be_notified(new_client) and _can_be_notified(client):
            silenced.append(client)
    return removed, silenced


def record_losses(old: Registry, new: Registry, monotonic: float) -> tuple[Registry, Sequence[Client]]:
    """Return `new` with the recent losses of clients' addresses, and the clients of `old` that lose their address now.

    Losses older than `registry.grace` are dropped. A lost client keeps its aliases and its leader, which events still
    contain. `monotonic`: the present moment of a clock that never jumps.
    """
    removed, silenced = find_lost_clients(old, new)
    lost = [*filter(_can_be_notified, removed), *silenced]
    is_narrower = _accepts_fewer_publishers(old, new)
    if not (lost or old.lost_at or is_narrower or old.has_just_narrowed(monotonic)):
        return new, ()
    lost_at: dict[str, dict[str, float]] = {}
    for iss, moments in old.lost_at.items():
        for client_id, at in moments.items():
            if monotonic < at + new.grace and not new.has_address(iss, client_id):
                lost_at.setdefault(iss, {})[client_id] = at
    for client in lost:
        lost_at.setdefault(client.iss, {})[client.client_id] = monotonic
    narrowed_at = monotonic if is_narrower else old.narrowed_at
    aliases = dict(new.aliases)
    for iss, moments in lost_at.items():
        kept = {alias: client_id for alias, client_id in old.aliases.get(iss, {}).items() if client_id in moments}
        if kept:
            aliases[iss] = {**kept, **new.aliases.get(iss, {})}
    noted = replace(new, aliases=aliases, lost_at=lost_at, narrowed_at=narrowed_at)
    return replace(noted, followers=keep_followers(old, noted, monotonic)), lost


def keep_followers(old: Registry, new: Registry, monotonic: float) -> Mapping[str, Followers]:
    """Return the followers of `new`, and those of `old` that have just been lost, unless these follow followers now."""
    kept = dict(new.followers)
    for iss, before in old.followers.items():
        after = kept.pop(iss, Followers(of={}, leaders={}))
        lost = {
            client_id: leader
            for client_id in new.lost_at.get(iss, ())
            if (leader := before.leaders.get(client_id)) is not None
            and new.has_just_lost(iss, client_id, monotonic)
            and (client_id in after.lost or not (after.of.get(client_id) or {client_id, leader} & after.leaders.keys()))
        }
        followers = after.replace_lost(lost)
        if followers.leaders:
            kept[iss] = followers
    return kept


def _accepts_fewer_publishers(old: Registry, new: Registry) -> bool:
    """Return True if `registry.inline` is stricter than before, or an issuer has no `publishers` any more.

    In both cases, addresses in events are accepted from fewer publishers.
    """
    if _RULES.index(new.inline) < _RULES.index(old.inline):
        return True
    with_publishers = [iss for iss, issuer in old.issuers.items() if issuer.publishers is not None]
    return any(iss in new.issuers and new.issuers[iss].publishers is None for iss in with_publishers)


def find_sudden_changes(old: Registry, new: Registry, only: Container[tuple[str, str]]) -> str | None:
    """Return a report of added clients and changed addresses if there are too many at once; otherwise None.

    The limit is that of lost clients. `only`: check these clients (`iss`, `client_id`) only.
    """
    count = sum(map(_can_be_notified, _clients_of(old, only)))
    moved, added = [], []
    for client in filter(_can_be_notified, _clients_of(new, only)):
        old_client = old.clients_of(client.iss).get(client.client_id)
        if old_client is None or not _can_be_notified(old_client):
            added.append(client)
        elif old_client.logout_uri != client.logout_uri:
            moved.append(client)
    changes = [
        f"{len(clients)} {what}: {_join_names(clients, new)}"
        for clients, what in ((moved, "have another address"), (added, "are new"))
        if _is_too_many(len(clients), count)
    ]
    return f"besides {count} clients with an address before, " + "; ".join(changes) if changes else None


def _clients_of(registry: Registry, only: Container[tuple[str, str]] | None = None) -> Iterator[Client]:
    every = (client for clients in registry.clients.values() for client in clients.values())
    return every if only is None else (client for client in every if client.key in only)


def _has_lost_leader(old: Registry, new: Registry, client: Client) -> bool:
    leader = client.follows
    return leader is not None and leader in old.clients_of(client.iss) and leader not in new.clients_of(client.iss)


def _can_be_notified(client: Client) -> bool:
    return client.logout_uri is not None


def _is_too_many(lost: int, before: int) -> bool:
    return lost > MAX_UNCHECKED_LOSSES and lost * MIN_CLIENTS_PER_LOSS > before


def _join_names(lost: Sequence[Client], registry: Registry) -> str:
    """Return the names of the first clients and the number of the others, with their issuer if there are several."""
    several = sum(map(bool, registry.clients.values())) > 1
    names = [
        f"{client.client_id[:60]!r}" + (f" of {client.iss}" if several else "") for client in lost[:MAX_NAMED_CLIENTS]
    ]
    return ", ".join(names) + (f" and {len(lost) - MAX_NAMED_CLIENTS:,} more" if len(lost) > MAX_NAMED_CLIENTS else "")
