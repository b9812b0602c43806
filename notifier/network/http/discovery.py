"""Reads what an OpenID Provider publishes: its metadata, and its keys (OpenID Connect Discovery 1.0)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from notifier.model.client import EgressPolicy, TlsFiles
from notifier.model.frozen import frozen
from notifier.network.http.issuer_document import (
    IssuerDocument,
    UnreadDocument,
    found_egress,
    issuer_egress,
    present_members,
)
from notifier.network.http.issuer_documents import DocumentReader


@frozen
class Discovery:
    """A provider, and where its metadata are. Each document is read within `within` seconds."""

    issuer: str
    metadata: str
    tls: TlsFiles
    within: float

    async def read(self, reader: DocumentReader, egress: EgressPolicy) -> Mapping[str, Any] | UnreadDocument:
        """Read the metadata. Never raises."""
        document = await reader.read(self.metadata, egress=issuer_egress(egress), tls=self.tls, within=self.within)
        if isinstance(document, UnreadDocument):
            return UnreadDocument(text=f"its metadata at {self.metadata} could not be read: {document.text}")
        metadata = present_members(document.content) if isinstance(document.content, dict) else {}
        if (named := metadata.get("issuer")) != self.issuer:
            text = f"its metadata at {self.metadata} name the issuer {named!r:.200}, not {self.issuer}"
            return UnreadDocument(text=text)
        return metadata

    async def read_keys(
        self, reader: DocumentReader, egress: EgressPolicy, algorithms_in: str | None = None
    ) -> IssuerDocument | UnreadDocument:
        """Read the metadata, and the JWK Set that they name. Never raises.

        `algorithms_in`: the member of the metadata with the algorithms that its tokens may be signed by.
        """
        metadata = await self.read(reader, egress)
        if isinstance(metadata, UnreadDocument):
            return metadata
        uri = metadata.get("jwks_uri")
        if not isinstance(uri, str):
            return UnreadDocument(text=f"its metadata at {self.metadata} name no jwks_uri")
        policy = self.egress(egress, uri)
        document = await reader.read(uri, egress=policy, tls=self.tls, within=self.within)
        if isinstance(document, UnreadDocument):
            way_out = "; if you mean that address, write it as jwks_uri" if policy is egress else ""
            text = f"the jwks_uri of its metadata at {self.metadata}, {uri!r:.200}: {document.text}{way_out}"
            return UnreadDocument(text=text)
        named = metadata.get(algorithms_in or "")
        return replace(document, algorithms=tuple(map(str, named)) if isinstance(named, list) else None)

    def egress(self, egress: EgressPolicy, uri: str) -> EgressPolicy:
        """The egress policy for an address that the metadata name."""
        return found_egress(egress, uri, self.metadata, self.issuer)
