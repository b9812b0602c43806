"""Judges a whole registry: who asks for what no key can sign, and whether a reload would lose too many clients."""

from collections.abc import Callable

from notifier.domain.client import Algorithm
from notifier.domain.errors import Mistake
from notifier.domain.registry import Registry

AlgorithmsOf = Callable[[str], frozenset[Algorithm]]
"""By issuer: the algorithms that its keys can do."""

_KEYS = {
    Algorithm.ES256: "a P-256 key",
    Algorithm.ES384: "a P-384 key",
    Algorithm.ES512: "a P-521 key",
    Algorithm.EDDSA: "an Ed25519 key",
}


def find_unsignable(registry: Registry, algorithms_of: AlgorithmsOf) -> list[Mistake]:
    """Every client that is to be told, and asks for an algorithm that no key of its issuer can do."""
    mistakes = []
    for iss, clients in registry.clients.items():
        possible = algorithms_of(iss)
        for client in clients.values():
            if client.token.alg not in possible and client.backchannel_logout_uri is not None:
                path = f"client {client.client_id!r} of {iss}"
                mistakes.append(Mistake(path, _unsignable(client.token.alg, iss, possible)))
    return mistakes


def _unsignable(alg: Algorithm, iss: str, possible: frozenset[Algorithm]) -> str:
    names = ", ".join(name for name in Algorithm if name in possible)
    has = f"keys of its issuer can do only {names}" if names else "its issuer has no usable key"
    other = ", or register the client with id_token_signed_response_alg set to one of these" if names else ""
    key = _KEYS.get(alg, "an RSA key")
    return f'needs a token signed with {alg}, but {has}: add {key} to issuers["{iss}"].keys{other}'


def too_much_shorter(old: Registry, new: Registry) -> str | None:
    """Why a reload should not be believed: it would remove more than a fifth of the clients, and more than 5."""
    before = sum(len(clients) for clients in old.clients.values())
    gone = sum(client_id not in new.clients_of(iss) for iss, clients in old.clients.items() for client_id in clients)
    if gone <= 5 or gone * 5 <= before:
        return None
    return (
        f"would remove {gone} of {before} clients, which looks like a file cut short: the old registry is kept;"
        " send SIGHUP to load it all the same"
    )
