"""The doctor's checks of keys.

Can receivers find an issuer's keys, and does its metadata announce logout? Does each client whose tokens are encrypted
have a key that fits? Can the tokens of a source be verified?
"""

import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from notifier.model.client import Algorithm, Client, ClientKeysSource, Encryption, PublishedKey
from notifier.model.presets import too_new
from notifier.model.printable import counted
from notifier.network.http.issuer_document import (
    DocumentIssue,
    IssuerDocument,
    is_for_tests,
    metadata_uri,
    present_members,
)
from notifier.operators.doctor.doctor import Area, Finding, failure, ok, warning
from notifier.operators.doctor.doctor_queue import clock_finding
from notifier.tokens.first_day import Seen, describe_first_day, earliest_publication
from notifier.tokens.foreign_keys import encryption_key, find_unused_keys, format_key_fault, read_jwks, verifying_fault
from notifier.tokens.key_watch import ReadIssuer
from notifier.tokens.published_keys import Signing, publication_fault, publication_faults

GetSeenKeys = Callable[[], Awaitable[Seen]]
"""Return since when the workers have seen each published key."""

PUBLISH_ADVICE = "have the issuer publish the output of `notifier keys jwks`"
NEW_KEY_ADVICE = (
    "restart those clients, or wait: until its first day is over, their 400s are tried again; give the next key a"
    " not_before of a day after it is published"
)
MAX_NAMED_CLIENTS = 5  # clients in one text
PENDING_TEXT = "its logouts wait meanwhile, and none is sent in clear; "


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerCase:
    """An issuer as configured. `client_counts`: the number of clients that need each algorithm.

    `upcoming`: public halves of keys that are not due yet. `slow_clients`: the clients that cache the JWK Set for long.
    """

    iss: str
    jwks_uri: str | None
    signing: Sequence[Signing]
    upcoming: Sequence[Signing]
    client_counts: Mapping[Algorithm, int]
    slow_clients: Sequence[Client] = ()


async def see_no_keys() -> Seen:
    """Return nothing: no worker is asked."""
    return {}


async def examine_issuer(
    case: IssuerCase, read: ReadIssuer, clock: Callable[[], float], get_seen: GetSeenKeys = see_no_keys
) -> list[Finding]:
    """Check the issuer's metadata, JWK Set and clock. Issuers for tests have none. `read` takes a document's URI."""
    if is_for_tests(case.iss):
        text = "is for tests alone, since nobody can have a name in .invalid; it publishes neither keys nor metadata"
        return [ok(Area.ISSUER, case.iss, text)]
    asked = clock()
    metadata = await read(metadata_uri(case.iss))
    findings = list(_check_metadata(case, metadata))
    if isinstance(metadata, IssuerDocument) and metadata.date is not None:
        findings.append(clock_finding(case.iss, metadata.date - (asked + clock()) / 2))
    uri = case.jwks_uri or _advertised_jwks_uri(metadata)
    if uri is None:
        advice = f'set issuers."{case.iss}".jwks_uri'
        return [*findings, warning(Area.KEYS, case.iss, "where its keys are published is not known", advice)]
    jwks = await read(uri)
    if isinstance(jwks, DocumentIssue):
        advice = "receivers cannot verify by it either; while it cannot be read, a missing key goes unnoticed"
        return [*findings, failure(Area.KEYS, case.iss, f"its JWK Set at {uri} could not be read: {jwks.text}", advice)]
    published = read_jwks(jwks.content)
    if isinstance(published, str):
        return [*findings, failure(Area.KEYS, case.iss, f"what stands at {uri} {published}", "correct jwks_uri")]
    workers = await get_seen()
    return [*findings, *judge_keys(case, published, workers, clock())]


def judge_keys(case: IssuerCase, published: tuple[PublishedKey, ...], workers: Seen, now: float) -> Iterator[Finding]:
    """Yield for each key since when it is published, or the fault; then new keys that clients may not have read yet."""

    def published_key(key: Signing, name: str) -> Finding:
        since = describe_first_day(key.made_at, workers.get((case.iss, key.public["kid"])), now)
        return ok(Area.KEYS, case.iss, f"key {name}, is published {since}")

    if any(key.private for key in published):
        advice = "take it away, and replace the key: whoever has read it can end every session, or sign in as anybody"
        yield failure(Area.KEYS, case.iss, "its JWK Set holds a private key", advice)
    used_keys = [key for key in case.signing if case.client_counts.get(key.alg)]
    for key in used_keys:
        clients = counted(case.client_counts[key.alg], "client")
        name = f"{key.public['kid']} ({key.alg})"
        fault = publication_fault(key.public, key.alg, published)
        if fault is None:
            yield published_key(key, f"{name}, for {clients}")
        else:
            yield failure(Area.KEYS, case.iss, f"key {name}: {fault}; {clients} will answer 400", PUBLISH_ADVICE)
    used_kids = {key.public["kid"] for key in used_keys}
    unused_keys = [key for key in case.signing if key.public["kid"] not in used_kids]
    by_kid = {key.public["kid"]: key for key in (*unused_keys, *case.upcoming)}
    for kid, fault in publication_faults(unused_keys, published).items():
        if fault is None:
            yield published_key(by_kid[kid], f"{kid}, which no registered client asks for")
        elif case.client_counts:
            text = f"key {kid}, which no registered client asks for: {fault}"
            yield warning(Area.KEYS, case.iss, text, f"{PUBLISH_ADVICE}, or take the key out")
        else:
            yield failure(Area.KEYS, case.iss, f"key {kid}: {fault}", PUBLISH_ADVICE)
    for kid, fault in publication_faults(case.upcoming, published).items():
        if fault is None:
            yield published_key(by_kid[kid], f"{kid}, which is to sign later")
        else:
            text = f"key {kid}, which is to sign later: {fault}"
            yield warning(
                Area.KEYS, case.iss, text, f"{PUBLISH_ADVICE} before its not_before, so that receivers know it"
            )
    yield from _check_new_keys(case, workers, now)


def _check_new_keys(case: IssuerCase, workers: Seen, now: float) -> Iterator[Finding]:
    """Yield a warning for each new key that clients may not have read yet, since they cache the JWK Set."""
    for key in case.signing:
        began = earliest_publication(key.made_at, workers.get((case.iss, key.public["kid"])))
        age = math.inf if began is None else now - began
        late = [
            client.client_id for client in case.slow_clients if client.token.alg is key.alg and too_new(client, age)
        ]
        if late:
            text = (
                f"key {key.public['kid']} ({key.alg}) is {max(age, 0.0) / 3600:.1f} h old, and"
                f" {counted(len(late), 'client')} may not know it yet, since their preset says that they keep the JWK"
                f" Set: {', '.join(late[:MAX_NAMED_CLIENTS])}"
            )
            yield warning(Area.KEYS, case.iss, text, NEW_KEY_ADVICE)


def _advertised_jwks_uri(metadata: IssuerDocument | DocumentIssue) -> str | None:
    content = metadata.content if isinstance(metadata, IssuerDocument) else None
    uri = present_members(content).get("jwks_uri") if isinstance(content, dict) else None
    return uri if isinstance(uri, str) else None


def _check_metadata(case: IssuerCase, metadata: IssuerDocument | DocumentIssue) -> Iterator[Finding]:
    """Check B1 and B2, and that the metadata belongs to this issuer (Discovery 1.0 §4.3)."""
    content = metadata.content if isinstance(metadata, IssuerDocument) else None
    if not isinstance(content, dict):
        why = metadata.text if isinstance(metadata, DocumentIssue) else "is no JSON object"
        text = f"its metadata at {metadata_uri(case.iss)} could not be read: {why}"
        yield warning(Area.ISSUER, case.iss, text, "receivers read it when they start; look whether they can")
        return
    if content.get("issuer") != case.iss:
        text = f"its metadata calls it {content.get('issuer')!r:.200}, and receivers compare that with iss"
        yield failure(Area.ISSUER, case.iss, text, "name the issuer in issuers exactly as it names itself")
    advertised = _advertised_jwks_uri(metadata)
    if case.jwks_uri is None and advertised is not None:
        advice = f'set issuers."{case.iss}".jwks_uri: {advertised}'
        yield warning(Area.ISSUER, case.iss, "jwks_uri is not set, so workers do not watch its keys", advice)
    elif advertised not in (None, case.jwks_uri):
        text = f"receivers read the keys at {advertised}, not at the jwks_uri that is configured"
        yield warning(Area.ISSUER, case.iss, text, f'set issuers."{case.iss}".jwks_uri: {advertised}')
    if content.get("backchannel_logout_supported") is not True:
        text = "its metadata does not say backchannel_logout_supported: true"
        yield warning(Area.ISSUER, case.iss, text, "some receivers then register for no logouts: have it advertised")
    elif content.get("backchannel_logout_session_supported") is not True:
        text = "its metadata does not say backchannel_logout_session_supported: true"
        yield warning(Area.ISSUER, case.iss, text, "have it advertised, so that receivers ask for sid")
    else:
        yield ok(Area.ISSUER, case.iss, "its metadata advertises back-channel logout with sessions")


def key_sources_of(clients: Iterable[Client]) -> Mapping[ClientKeysSource, Sequence[Client]]:
    """Return the URIs from which keys must be read, each with its clients."""
    users: dict[ClientKeysSource, list[Client]] = {}
    for client, encryption in _encryptions_of(clients):
        if isinstance(encryption.keys, ClientKeysSource):
            users.setdefault(encryption.keys, []).append(client)
    return users


def judge_jwks(clients: Iterable[Client]) -> Iterator[Finding]:
    """Yield findings about the keys that registrations hold themselves."""
    for client, encryption in _encryptions_of(clients):
        if not isinstance(encryption.keys, ClientKeysSource):
            yield _judge_key(client.client_id, encryption, encryption.keys)


async def examine_keys(
    place: ClientKeysSource,
    clients: Sequence[Client],
    read: Callable[[ClientKeysSource], Awaitable[IssuerDocument | DocumentIssue]],
) -> Sequence[Finding]:
    """Read the JWK Set as for a delivery, and look for a key of each client."""
    document = await read(place)
    keys = document.text if isinstance(document, DocumentIssue) else read_jwks(document.content)
    if not isinstance(keys, str):
        return [_judge_key(client.client_id, encryption, keys) for client, encryption in _encryptions_of(clients)]
    text = format_key_fault(place, f"cannot be read: {keys}")
    advice = f"{PENDING_TEXT}look whether it answers, and whether egress of the client allows that address"
    return [failure(Area.CLIENT, client.client_id, text, advice) for client in clients]


def _encryptions_of(clients: Iterable[Client]) -> Iterator[tuple[Client, Encryption]]:
    for client in clients:
        if client.encryption is not None and client.backchannel_logout_uri is not None:
            yield client, client.encryption


def _judge_key(client_id: str, encryption: Encryption, keys: tuple[PublishedKey, ...]) -> Finding:
    key = encryption_key(keys, encryption.alg)
    if isinstance(key, str):
        advice = (
            f"{PENDING_TEXT}have the client publish a key for it, or register another id_token_encrypted_response_alg"
        )
        return failure(Area.CLIENT, client_id, format_key_fault(encryption.keys, key), advice)
    named = "a key without kid" if key.kid is None else f"its key {key.kid!r}"
    return ok(Area.CLIENT, client_id, f"its tokens are encrypted to {named} by {encryption.alg} and {encryption.enc}")


async def examine_transmitter(
    setting: str, uri: str, read: Callable[[str], Awaitable[IssuerDocument | DocumentIssue]]
) -> list[Finding]:
    """Check the JWK Set that verifies the tokens of a source. `setting` names it."""
    document = await read(uri)
    if isinstance(document, DocumentIssue):
        advice = "its tokens are answered 503 until it can be read; check the address, and tls beside it"
        where = "" if uri in document.text else f" at {uri}"  # an upstream's text names its metadata
        return [failure(Area.KEYS, setting, f"the JWK Set{where} could not be read: {document.text}", advice)]
    published = read_jwks(document.content)
    if isinstance(published, str):
        return [failure(Area.KEYS, setting, f"what stands at {uri} {published}", "correct jwks_uri")]
    if any(key.private for key in published):
        advice = "have the transmitter replace the key, and tell its operator: whoever has read it can sign users out"
        return [failure(Area.KEYS, setting, f"the JWK Set at {uri} holds a private key", advice)]
    usable, unused = sum(verifying_fault(key) is None for key in published), find_unused_keys(published)
    if not usable:
        advice = "its tokens are answered 400 until the transmitter publishes one; check the address"
        why = "" if unused is None else f": {unused}"
        return [failure(Area.KEYS, setting, f"the JWK Set at {uri} has no key that verifies signatures{why}", advice)]
    readable = ok(Area.KEYS, setting, f"{counted(usable, 'key')} for its tokens can be read")
    if unused is None:
        return [readable]
    advice = "tokens that they sign are refused; have the transmitter publish another key"
    return [readable, warning(Area.KEYS, setting, f"the JWK Set at {uri} has keys that are not used: {unused}", advice)]
