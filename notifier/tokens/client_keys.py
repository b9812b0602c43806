"""Reads the keys of clients whose tokens are encrypted, by each client's own route."""

from notifier.model.client import ClientKeysPlace
from notifier.network.http.issuer_document import IssuerDocument, UnreadDocument
from notifier.network.http.issuer_documents import DocumentReader

KEYS_WITHIN = 5.0  # seconds that a client has to give its JWK Set: deliveries wait for the first one


class ClientKeyReader:
    """Reads JWK Sets of clients."""

    def __init__(self) -> None:
        self._reader = DocumentReader()

    async def read(self, place: ClientKeysPlace) -> IssuerDocument | UnreadDocument:
        """Read a client's JWK Set, or say why it cannot be read. Never raises."""
        route = place.route
        if route.withheld is not None:
            return UnreadDocument(text=route.withheld)
        return await self._reader.read(
            place.uri, egress=route.egress, tls=route.tls, within=KEYS_WITHIN, proxy=route.proxy
        )

    async def close(self) -> None:
        """Stop reading TLS files."""
        await self._reader.close()
