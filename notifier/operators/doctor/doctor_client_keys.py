"""The doctor's checks of clients whose tokens are encrypted: does each have a key that fits?"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

from notifier.model.client import Client, ClientKeysPlace, Encryption, PublishedKey
from notifier.network.http.issuer_document import IssuerDocument, UnreadDocument
from notifier.operators.doctor.doctor import Area, Finding, failed, ok
from notifier.tokens.client_jwks import encryption_key, without_key
from notifier.tokens.foreign_keys import read_jwks

WAITS = "its logouts wait meanwhile, and none is sent in clear; "


def keys_elsewhere(clients: Iterable[Client]) -> Mapping[ClientKeysPlace, Sequence[Client]]:
    """Return the places from which keys must be read, each with its clients."""
    users: dict[ClientKeysPlace, list[Client]] = {}
    for client, encryption in _encrypted(clients):
        if isinstance(encryption.keys, ClientKeysPlace):
            users.setdefault(encryption.keys, []).append(client)
    return users


def judge_jwks(clients: Iterable[Client]) -> Iterator[Finding]:
    """Yield findings about the keys that registrations hold themselves."""
    for client, encryption in _encrypted(clients):
        if not isinstance(encryption.keys, ClientKeysPlace):
            yield _judged(client.client_id, encryption, encryption.keys)


async def examine_keys(
    place: ClientKeysPlace,
    clients: Sequence[Client],
    read: Callable[[ClientKeysPlace], Awaitable[IssuerDocument | UnreadDocument]],
) -> Sequence[Finding]:
    """Read the JWK Set as for a delivery, and look for a key of each client."""
    document = await read(place)
    keys = document.text if isinstance(document, UnreadDocument) else read_jwks(document.content)
    if not isinstance(keys, str):
        return [_judged(client.client_id, encryption, keys) for client, encryption in _encrypted(clients)]
    text = without_key(place, f"cannot be read: {keys}")
    advice = f"{WAITS}look whether it answers, and whether egress of the client allows that address"
    return [failed(Area.CLIENT, client.client_id, text, advice) for client in clients]


def _encrypted(clients: Iterable[Client]) -> Iterator[tuple[Client, Encryption]]:
    for client in clients:
        if client.encryption is not None and client.backchannel_logout_uri is not None:
            yield client, client.encryption


def _judged(client_id: str, encryption: Encryption, keys: tuple[PublishedKey, ...]) -> Finding:
    key = encryption_key(keys, encryption.alg)
    if isinstance(key, str):
        advice = f"{WAITS}have the client publish a key for it, or register another id_token_encrypted_response_alg"
        return failed(Area.CLIENT, client_id, without_key(encryption.keys, key), advice)
    named = "a key without kid" if key.kid is None else f"its key {key.kid!r}"
    return ok(Area.CLIENT, client_id, f"its tokens are encrypted to {named} by {encryption.alg} and {encryption.enc}")
