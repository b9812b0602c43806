"""The doctor's checks of keys and issuers.

They examine whether receivers can find an issuer's keys, whether its metadata announces logout, whether each client
whose tokens are encrypted publishes a suitable key, and whether tokens of a source can be verified.
"""

import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from notifier.model.client import Algorithm, Client, ClientKeysSource, Encryption, PublishedKey
from notifier.model.presets import warn_of_new_key
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
from notifier.tokens.foreign_keys import (
    encryption_key,
    find_coordinate_fault,
    find_unused_keys,
    find_verifying_fault,
    format_key,
    format_key_fault,
    read_jwks,
)
from notifier.tokens.key_watch import ReadIssuer
from notifier.tokens.published_keys import Signing, find_publication_fault, find_publication_faults

GetSeenKeys = Callable[[], Awaitable[Seen]]
"""Returns since when the workers have seen each published key."""

PUBLISH_ADVICE = "have the issuer publish the output of `notifier keys jwks`"
NEW_KEY_ADVICE = (
    "restart those clients, or wait: until its first day is over, their 400s are tried again; give the next key a"
    " not_before of a day after it is published"
)
MAX_NAMED_CLIENTS = 5  # in one text
PENDING_TEXT = "its logouts wait meanwhile, and none is sent unencrypted; "


@dataclass(frozen=True, slots=True, kw_only=True)
class ExaminedIssuer:
    """The configuration of an issuer, as far as it is checked.

    `signing` has the keys that sign now, and `upcoming` the keys that sign later. `client_counts` has the number of
    clients that need each algorithm. `slow_clients` are the clients that cache the issuer's JWK Set for a long time.
    """

    iss: str
    jwks_uri: str | None
    signing: Sequence[Signing]
    upcoming: Sequence[Signing]
    client_counts: Mapping[Algorithm, int]
    slow_clients: Sequence[Client] = ()


async def get_no_seen_keys() -> Seen:
    """Return no keys, for a doctor that does not query the workers."""
    return {}


async def examine_issuer(
    issuer: ExaminedIssuer, read: ReadIssuer, clock: Callable[[], float], get_seen: GetSeenKeys = get_no_seen_keys
) -> list[Finding]:
    """Check an issuer's metadata, JWK Set and clock, unless it is for tests. `read` reads the document at a URI."""
    if is_for_tests(issuer.iss):
        text = "is only for tests, since its name ends in .invalid; it publishes neither keys nor metadata"
        return [ok(Area.ISSUER, issuer.iss, text)]
    asked_at = clock()
    metadata = await read(metadata_uri(issuer.iss))
    findings = list(_check_metadata(issuer, metadata))
    if isinstance(metadata, IssuerDocument) and metadata.date is not None:
        # The issuer read its clock about halfway between request and response.
        findings.append(clock_finding(issuer.iss, metadata.date - (asked_at + clock()) / 2))
    uri = issuer.jwks_uri or _advertised_jwks_uri(metadata)
    if uri is None:
        advice = f'set issuers."{issuer.iss}".jwks_uri'
        return [*findings, warning(Area.KEYS, issuer.iss, "the address of its keys is unknown", advice)]
    jwks = await read(uri)
    if isinstance(jwks, DocumentIssue):
        advice = "receivers cannot read it either; until it can be read, a missing key is not detected"
        text = f"its JWK Set at {uri} could not be read: {jwks.text}"
        return [*findings, failure(Area.KEYS, issuer.iss, text, advice)]
    published = read_jwks(jwks.content)
    if isinstance(published, str):
        return [*findings, failure(Area.KEYS, issuer.iss, f"the document at {uri} {published}", "correct jwks_uri")]
    seen_keys = await get_seen()
    return [*findings, *judge_keys(issuer, published, seen_keys, clock())]


def judge_keys(
    issuer: ExaminedIssuer, published: tuple[PublishedKey, ...], seen_keys: Seen, now: float
) -> Iterator[Finding]:
    """Yield a finding for each key: since when it is published, or the fault.

    Before, report a published private key. At the end, warn of keys that are too new.
    """

    def make_published_finding(key: Signing, name: str) -> Finding:
        since = describe_first_day(key.made_at, seen_keys.get((issuer.iss, key.public["kid"])), now)
        return ok(Area.KEYS, issuer.iss, f"key {name}, is published {since}")

    if any(key.private for key in published):
        advice = (
            "remove it, and replace the key: everybody who has read it can end every session, or sign in as any user"
        )
        yield failure(Area.KEYS, issuer.iss, "its JWK Set holds a private key", advice)
    yield from _check_coordinates(issuer, published)
    used_keys = [key for key in issuer.signing if issuer.client_counts.get(key.alg)]
    for key in used_keys:
        clients = counted(issuer.client_counts[key.alg], "client")
        name = f"{key.public['kid']} ({key.alg})"
        fault = find_publication_fault(key.public, key.alg, published)
        if fault is None:
            yield make_published_finding(key, f"{name}, for {clients}")
        else:
            yield failure(Area.KEYS, issuer.iss, f"key {name}: {fault}; {clients} will answer 400", PUBLISH_ADVICE)
    used_kids = {key.public["kid"] for key in used_keys}
    unused_keys = [key for key in issuer.signing if key.public["kid"] not in used_kids]
    by_kid = {key.public["kid"]: key for key in (*unused_keys, *issuer.upcoming)}
    for kid, fault in find_publication_faults(unused_keys, published).items():
        if fault is None:
            yield make_published_finding(by_kid[kid], f"{kid}, which no registered client needs")
        elif issuer.client_counts:
            text = f"key {kid}, which no registered client needs: {fault}"
            yield warning(Area.KEYS, issuer.iss, text, f"{PUBLISH_ADVICE}, or remove the key")
        else:
            yield failure(Area.KEYS, issuer.iss, f"key {kid}: {fault}", PUBLISH_ADVICE)
    for kid, fault in find_publication_faults(issuer.upcoming, published).items():
        if fault is None:
            yield make_published_finding(by_kid[kid], f"{kid}, which signs later")
        else:
            text = f"key {kid}, which signs later: {fault}"
            advice = f"{PUBLISH_ADVICE} before its not_before, so that receivers have read it"
            yield warning(Area.KEYS, issuer.iss, text, advice)
    yield from _check_new_keys(issuer, seen_keys, now)


def _check_coordinates(issuer: ExaminedIssuer, published: tuple[PublishedKey, ...]) -> Iterator[Finding]:
    """Yield a warning for each of our keys that is published with a coordinate of a wrong length."""
    own_kids = {key.public["kid"] for key in (*issuer.signing, *issuer.upcoming)}
    for key in published:
        fault = find_coordinate_fault(key.kty, dict(key.material))
        if fault is not None and key.kid in own_kids:
            text = f"its JWK Set: {format_key(key)} {fault}"
            yield warning(Area.KEYS, issuer.iss, text, "correct it; clients may refuse the key, and answer 400")


def _check_new_keys(issuer: ExaminedIssuer, seen_keys: Seen, now: float) -> Iterator[Finding]:
    """Yield a warning for each new key that clients may not have read yet, since they cache the JWK Set."""
    for key in issuer.signing:
        published_at = earliest_publication(key.made_at, seen_keys.get((issuer.iss, key.public["kid"])))
        age = math.inf if published_at is None else now - published_at
        users = [client for client in issuer.slow_clients if client.token.alg is key.alg]
        late = [client.client_id for client in users if warn_of_new_key(client, age)]
        if late:
            text = (
                f"key {key.public['kid']} ({key.alg}) is {max(age, 0.0) / 3600:.1f} h old, and"
                f" {counted(len(late), 'client')} may not have read it yet, since servers of their preset cache the JWK"
                f" Set: {', '.join(late[:MAX_NAMED_CLIENTS])}"
            )
            yield warning(Area.KEYS, issuer.iss, text, NEW_KEY_ADVICE)


def _advertised_jwks_uri(metadata: IssuerDocument | DocumentIssue) -> str | None:
    content = metadata.content if isinstance(metadata, IssuerDocument) else None
    uri = present_members(content).get("jwks_uri") if isinstance(content, dict) else None
    return uri if isinstance(uri, str) else None


def _check_metadata(issuer: ExaminedIssuer, metadata: IssuerDocument | DocumentIssue) -> Iterator[Finding]:
    """Check the issuer in the metadata (Discovery 1.0 §4.3), its `jwks_uri`, and that it announces logout."""
    content = metadata.content if isinstance(metadata, IssuerDocument) else None
    if not isinstance(content, dict):
        why = metadata.text if isinstance(metadata, DocumentIssue) else "it is not a JSON object"
        text = f"its metadata at {metadata_uri(issuer.iss)} could not be read: {why}"
        yield warning(Area.ISSUER, issuer.iss, text, "receivers read it when they start; check that they can")
        return
    if content.get("issuer") != issuer.iss:
        text = f"the issuer in its metadata is {content.get('issuer')!r:.200}, and receivers compare that with iss"
        yield failure(Area.ISSUER, issuer.iss, text, "write it in issuers exactly as in its metadata")
    advertised = _advertised_jwks_uri(metadata)
    if issuer.jwks_uri is None and advertised is not None:
        advice = f'set issuers."{issuer.iss}".jwks_uri: {advertised}'
        yield warning(Area.ISSUER, issuer.iss, "jwks_uri is not set, so workers do not watch its keys", advice)
    elif advertised not in (None, issuer.jwks_uri):
        text = f"receivers read the keys at {advertised}, not at the jwks_uri that is configured"
        yield warning(Area.ISSUER, issuer.iss, text, f'set issuers."{issuer.iss}".jwks_uri: {advertised}')
    if content.get("backchannel_logout_supported") is not True:
        text = "its metadata does not have backchannel_logout_supported: true"
        advice = "some receivers then do not register for logouts: have the issuer advertise it"
        yield warning(Area.ISSUER, issuer.iss, text, advice)
    elif content.get("backchannel_logout_session_supported") is not True:
        text = "its metadata does not have backchannel_logout_session_supported: true"
        yield warning(Area.ISSUER, issuer.iss, text, "have the issuer advertise it, so that receivers request sid")
    else:
        yield ok(Area.ISSUER, issuer.iss, "its metadata advertises back-channel logout with sessions")


def key_sources_of(clients: Iterable[Client]) -> Mapping[ClientKeysSource, Sequence[Client]]:
    """Return the URIs from which keys must be read to encrypt tokens, each with its clients."""
    users: dict[ClientKeysSource, list[Client]] = {}
    for client, encryption in _encryptions_of(clients):
        if isinstance(encryption.keys, ClientKeysSource):
            users.setdefault(encryption.keys, []).append(client)
    return users


def judge_jwks(clients: Iterable[Client]) -> Iterator[Finding]:
    """Yield a finding for each client whose registration contains its JWK Set."""
    for client, encryption in _encryptions_of(clients):
        if not isinstance(encryption.keys, ClientKeysSource):
            yield _judge_key(client.client_id, encryption, encryption.keys)


async def examine_keys(
    source: ClientKeysSource,
    clients: Sequence[Client],
    read: Callable[[ClientKeysSource], Awaitable[IssuerDocument | DocumentIssue]],
) -> Sequence[Finding]:
    """Read the JWK Set as for a delivery. Return a finding for each client: the key that encrypts, or the fault."""
    document = await read(source)
    keys = document.text if isinstance(document, DocumentIssue) else read_jwks(document.content)
    if not isinstance(keys, str):
        return [_judge_key(client.client_id, encryption, keys) for client, encryption in _encryptions_of(clients)]
    text = format_key_fault(source, f"cannot be read: {keys}")
    advice = f"{PENDING_TEXT}check that it answers, and that egress of the client permits that address"
    return [failure(Area.CLIENT, client.client_id, text, advice) for client in clients]


def _encryptions_of(clients: Iterable[Client]) -> Iterator[tuple[Client, Encryption]]:
    for client in clients:
        if client.encryption is not None and client.backchannel_logout_uri is not None:
            yield client, client.encryption


def _judge_key(client_id: str, encryption: Encryption, keys: tuple[PublishedKey, ...]) -> Finding:
    """Return the finding about the client's key that encrypts its tokens."""
    key = encryption_key(keys, encryption.alg)
    if isinstance(key, str):
        advice = (
            f"{PENDING_TEXT}have the client publish a key for it, or register another id_token_encrypted_response_alg"
        )
        return failure(Area.CLIENT, client_id, format_key_fault(encryption.keys, key), advice)
    named = "a key without kid" if key.kid is None else f"its key {key.kid!r}"
    return ok(Area.CLIENT, client_id, f"its tokens are encrypted to {named} by {encryption.alg} and {encryption.enc}")


def judge_transmitter(setting: str, uri: str, document: IssuerDocument | DocumentIssue) -> list[Finding]:
    """Check the JWK Set that verifies the tokens of a source. `setting` is its path in the configuration."""
    if isinstance(document, DocumentIssue):
        advice = "its tokens are answered 503 until it can be read; check the address, and tls beside it"
        where = "" if uri in document.text else f" at {uri}"  # an upstream's text names its metadata
        return [failure(Area.KEYS, setting, f"the JWK Set{where} could not be read: {document.text}", advice)]
    published = read_jwks(document.content)
    if isinstance(published, str):
        return [failure(Area.KEYS, setting, f"the document at {uri} {published}", "correct jwks_uri")]
    if any(key.private for key in published):
        advice = "have its operator replace the key: everybody who has read it can sign users out"
        return [failure(Area.KEYS, setting, f"the JWK Set at {uri} holds a private key", advice)]
    usable_count, unused = sum(find_verifying_fault(key) is None for key in published), find_unused_keys(published)
    if not usable_count:
        advice = "its tokens are answered 400 until the transmitter publishes one; check the address"
        why = "" if unused is None else f": {unused}"
        return [failure(Area.KEYS, setting, f"the JWK Set at {uri} has no key that verifies signatures{why}", advice)]
    readable = ok(Area.KEYS, setting, f"{counted(usable_count, 'key')} for its tokens can be read")
    if unused is None:
        return [readable]
    advice = "tokens that they sign are refused; have the transmitter publish another key"
    return [readable, warning(Area.KEYS, setting, f"the JWK Set at {uri} has keys that are not used: {unused}", advice)]
