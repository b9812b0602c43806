"""Reads what a client's metadata say of encrypted tokens, and says what is wrong with it.

A key that cannot be fetched or does not fit is no mistake of the registration: the client's deliveries wait for it.
"""

from collections.abc import Iterator

from notifier.configuration.clients.lending import Lending
from notifier.model.client import Client, ClientKeysPlace, ContentEncryption, Encryption
from notifier.model.egress import check_uri, uri_mistake
from notifier.settings.clients import ClientMetadata
from notifier.tokens.foreign_keys import read_jwks


def encryption_of(metadata: ClientMetadata, lending: Lending) -> Encryption | None:
    """Return what the client asks for; None if its tokens are signed only, or if nothing says where its keys are."""
    alg, uri = metadata.id_token_encrypted_response_alg, metadata.jwks_uri
    if alg is None:
        return None
    enc = metadata.id_token_encrypted_response_enc or ContentEncryption.A128CBC_HS256
    keys = () if _is_empty(metadata.jwks) else read_jwks(metadata.jwks)
    if keys == () and uri:
        return Encryption(alg=alg, enc=enc, keys=ClientKeysPlace(uri=uri, route=lending.to_keys(metadata)))
    return Encryption(alg=alg, enc=enc, keys=() if isinstance(keys, str) else keys)


def wrong_for_encryption(metadata: ClientMetadata, client: Client, *, unsure: bool) -> Iterator[tuple[str, str]]:
    """Say what stands against the encrypted tokens of a client that is told, by the member to change.

    `unsure`: nothing is known of where requests may go.
    """
    if client.backchannel_logout_uri is None:
        return
    uri = metadata.jwks_uri
    if client.encryption is None:
        if metadata.id_token_encrypted_response_enc is not None:
            yield "id_token_encrypted_response_enc", "needs id_token_encrypted_response_alg beside it"
    elif not _is_empty(metadata.jwks) and isinstance(keys := read_jwks(metadata.jwks), str):
        yield "jwks", keys
    elif _is_empty(metadata.jwks) and not uri:
        advice = "needs the client's public keys: register its jwks or jwks_uri, in a file if its source has none"
        yield "id_token_encrypted_response_alg", advice
    elif uri and isinstance(place := client.encryption.keys, ClientKeysPlace):
        unjudged = unsure or place.route.withheld is not None
        if (text := uri_mistake(uri) if unjudged else check_uri(uri, place.route.egress)) is not None:
            yield "jwks_uri", text


def _is_empty(jwks: object) -> bool:
    """True if no JWK Set is registered: a serializer may write an unset member as an empty one."""
    return jwks is None or jwks in ("", [])
