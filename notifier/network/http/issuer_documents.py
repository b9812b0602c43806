"""Reads JSON documents that issuers and clients publish: one GET, one deadline, a bounded body, no redirects.

The documents are read every few minutes, so no connection is kept.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from notifier.model.client import EgressPolicy, TlsFiles
from notifier.model.moment import parse_http_date
from notifier.model.record import record
from notifier.network.http.client_contexts import TlsContexts
from notifier.network.http.issuer_document import (
    AnswerHead,
    DocumentIssue,
    IssuerDocument,
    discovered_egress,
    issuer_egress,
    parse_remaining_freshness,
    present_members,
)
from notifier.network.http.json_client import BeyondBounds, JsonAnswer, JsonClient, NoAnswer
from notifier.network.http.json_parts import Bounds
from notifier.settings.policies import TlsSettings

MAX_BODY_BYTES = 512 * 1024  # bytes; a JWK Set of a hundred RSA keys with their certificates is 300 KiB
_JSON = {"Accept": "application/json, application/jwk-set+json"}


class DocumentReader:
    """Reads documents of at most `max_bytes`. It must be closed. `headers`: further headers of each reading."""

    def __init__(self, max_bytes: int = MAX_BODY_BYTES, headers: Mapping[str, str] | None = None) -> None:
        self._bounds = Bounds(answer=max_bytes)
        self._headers = {**_JSON, **(headers or {})}
        self._tls = TlsContexts()

    async def close(self) -> None:
        """Stop reading TLS files."""
        await self._tls.close()

    async def read(
        self, uri: str, *, egress: EgressPolicy, tls: TlsFiles, within: float, proxy: str | None = None
    ) -> IssuerDocument | DocumentIssue:
        """Return the document, or the reason why it could not be read in `within` seconds. Never raises.

        A `proxy` resolves names, so `egress` checks only the URI itself.
        """
        answer = await self._request(uri, self._headers, egress=egress, tls=tls, within=within, proxy=proxy)
        if isinstance(answer, DocumentIssue):
            return answer
        if answer.status != 200:
            return DocumentIssue(text=f"answered {answer.status}", status=answer.status)
        if answer.content is None:
            return DocumentIssue(text="the answer is not JSON")
        headers = answer.headers
        fresh_seconds = parse_remaining_freshness(answer.joined_header("Cache-Control"), headers.get("Age"))
        date = parse_http_date(headers.get("Date", ""))
        return IssuerDocument(content=answer.content, date=date, fresh_seconds=fresh_seconds)

    async def read_configured(
        self, uri: str, policy: EgressPolicy, tls: TlsSettings | None, within: float
    ) -> IssuerDocument | DocumentIssue:
        """Return the document at an address that the operator has configured, which need not be public. See `read`."""
        files = TlsFiles() if tls is None else tls.files()
        return await self.read(uri, egress=issuer_egress(policy), tls=files, within=within)

    async def post(
        self, uri: str, form: Mapping[str, str], *, egress: EgressPolicy, tls: TlsFiles, within: float
    ) -> JsonAnswer | DocumentIssue:
        """Post a form, and return the response, whatever its status. Never raises."""
        accepted = {"Accept": "application/json"}
        return await self._request(uri, accepted, egress=egress, tls=tls, within=within, form=form)

    async def read_head(
        self, uri: str, headers: Mapping[str, str], *, egress: EgressPolicy, tls: TlsFiles, within: float
    ) -> AnswerHead | DocumentIssue:
        """Send a GET with these headers, and return the head of the response. Never raises."""
        answer = await self._request(
            uri, {"Accept": "*/*", **headers}, egress=egress, tls=tls, within=within, whole=False
        )
        if isinstance(answer, DocumentIssue):
            return answer
        names = {name.lower() for name in answer.headers}
        return AnswerHead(status=answer.status, headers={name: tuple(answer.headers.getall(name)) for name in names})

    async def _request(
        self,
        uri: str,
        headers: Mapping[str, str],
        *,
        egress: EgressPolicy,
        tls: TlsFiles,
        within: float,
        proxy: str | None = None,
        whole: bool = True,
        form: Mapping[str, str] | None = None,
    ) -> JsonAnswer | DocumentIssue:
        client = JsonClient(self._bounds, tls, egress=egress, proxy=proxy, share=self._tls)
        try:
            sent = {} if form is None else {"data": form}
            return await client.ask("POST" if sent else "GET", uri, headers, within=within, whole=whole, **sent)
        except NoAnswer as fault:
            is_unreachable = not fault.lasting and not isinstance(fault, BeyondBounds)
            return DocumentIssue(text=str(fault), status=0 if is_unreachable else None)
        finally:
            await client.close()


@record
class Discovery:
    """A provider, and the URI of its metadata. Each document is read within `within` seconds."""

    issuer: str
    metadata: str
    tls: TlsFiles
    within: float

    async def read(self, reader: DocumentReader, egress: EgressPolicy) -> Mapping[str, Any] | DocumentIssue:
        """Return the metadata. An issue if they cannot be read, or name another issuer. Never raises."""
        document = await reader.read(self.metadata, egress=issuer_egress(egress), tls=self.tls, within=self.within)
        if isinstance(document, DocumentIssue):
            text = f"its metadata at {self.metadata} could not be read: {document.text}"
            return DocumentIssue(text=text, status=document.status)
        metadata = present_members(document.content) if isinstance(document.content, dict) else {}
        issuer = metadata.get("issuer")
        if issuer != self.issuer:
            text = f"its metadata at {self.metadata} name the issuer {issuer!r:.200}, not {self.issuer}"
            return DocumentIssue(text=text)
        return metadata

    async def read_keys(
        self, reader: DocumentReader, egress: EgressPolicy, algorithms_in: str | None = None
    ) -> IssuerDocument | DocumentIssue:
        """Return the JWK Set at the `jwks_uri` of the metadata, or why it cannot be read. Never raises.

        `algorithms_in`: the member of the metadata with the signing algorithms of the provider's tokens.
        """
        metadata = await self.read(reader, egress)
        if isinstance(metadata, DocumentIssue):
            return metadata
        uri = metadata.get("jwks_uri")
        if not isinstance(uri, str):
            return DocumentIssue(text=f"its metadata at {self.metadata} name no jwks_uri")
        policy = self.egress(egress, uri)
        document = await reader.read(uri, egress=policy, tls=self.tls, within=self.within)
        if isinstance(document, DocumentIssue):
            remedy = "; if you mean that address, write it as jwks_uri" if policy is egress else ""
            text = f"the jwks_uri of its metadata at {self.metadata}, {uri!r:.200}: {document.text}{remedy}"
            return DocumentIssue(text=text, status=document.status)
        algorithms = metadata.get(algorithms_in or "")
        return replace(document, algorithms=tuple(map(str, algorithms)) if isinstance(algorithms, list) else None)

    def egress(self, egress: EgressPolicy, uri: str) -> EgressPolicy:
        """Return the egress policy for an address that the metadata name."""
        return discovered_egress(egress, uri, self.metadata, self.issuer)
