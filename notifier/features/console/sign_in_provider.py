"""Access the OpenID Provider at which operators sign in: its endpoints, its keys, and its token endpoint.

The worker instead of the page exchanges the code for tokens. The provider then needs no CORS, the page's policy permits
no other origin, and of the tokens only the access token reaches the browser. The worker has no client secret.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from notifier.configuration.loading import LoadedConfiguration
from notifier.features.console.console_settings import OidcSettings, console_of
from notifier.model.client import EgressPolicy, TlsFiles
from notifier.model.record import record
from notifier.model.shared_resources import shared_lock
from notifier.network.http.issuer_document import DocumentIssue, IssuerDocument
from notifier.network.http.issuer_documents import Discovery, DocumentReader
from notifier.operators.doctor.doctor import Area, Check, Finding, failure, ok
from notifier.operators.doctor.doctor_keys import judge_transmitter
from notifier.settings.values import has_host, is_in_clear
from notifier.tokens.transmitter_keys import TransmitterKeys

TIMEOUT_SECONDS = 5.0  # for a response of the provider
FRESH_SECONDS = 300.0  # during which the metadata are reused
RETRY_SECONDS = 5.0  # from a failed read of the metadata to the next
_ERROR_CODE = re.compile(r"[a-z_]{1,40}")  # error codes (RFC 6749 §5.2); other values are not shown
SETTING = "api.console.oidc"


@record
class Endpoints:
    """The URIs of the provider's authorization endpoint and token endpoint."""

    authorization: str
    token: str


@record
class ExchangedTokens:
    """The tokens that the provider issued for a code."""

    access_token: str
    id_token: str


@record
class ExchangeFailure:
    """Why a code was not exchanged. `refused`: the provider refused the code, so that a retry is useless."""

    text: str
    refused: bool = False


class SignInProvider:
    """The provider of the settings. `egress` returns the current egress policy; `monotonic` never jumps."""

    def __init__(
        self,
        settings: OidcSettings,
        reader: DocumentReader,
        egress: Callable[[], EgressPolicy],
        monotonic: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._reader = reader
        self._egress = egress
        self._monotonic = monotonic
        self._tls = TlsFiles() if settings.tls is None else settings.tls.files()
        self._discovery = Discovery(
            issuer=settings.issuer, metadata=settings.metadata, tls=self._tls, within=TIMEOUT_SECONDS
        )
        self._read_lock = shared_lock()
        self._next_read_at = float("-inf")
        self._endpoints: Endpoints | DocumentIssue = DocumentIssue(text="not read yet")
        self.keys = TransmitterKeys(settings.issuer, self.read_keys, monotonic)

    async def endpoints(self) -> Endpoints | DocumentIssue:
        """Return the endpoints, or why they are unavailable. Read them first if they are older than FRESH_SECONDS.

        A failed read keeps the last endpoints. While another request reads, they are returned without waiting.
        """
        is_due = self._monotonic() >= self._next_read_at
        is_reread = self._read_lock.locked() and isinstance(self._endpoints, Endpoints)
        if is_due and not is_reread:
            async with self._read_lock:
                if self._monotonic() >= self._next_read_at:  # no other request has read them meanwhile
                    await self._read_endpoints()
        return self._endpoints

    async def read_keys(self) -> IssuerDocument | DocumentIssue:
        """Return the provider's JWK Set, or why it cannot be read. Never raises."""
        return await self._discovery.read_keys(self._reader, self._egress())

    async def exchange(self, code: str, verifier: str, redirect_uri: str) -> ExchangedTokens | ExchangeFailure:
        """Exchange a code for tokens at the token endpoint (RFC 6749 §4.1.3, RFC 7636 §4.5). Never raises."""
        endpoints = await self.endpoints()
        if isinstance(endpoints, DocumentIssue):
            return ExchangeFailure(text=endpoints.text)
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "code_verifier": verifier,
            "redirect_uri": redirect_uri,
            "client_id": self._settings.client_id,
        }
        egress = self._discovery.egress(self._egress(), endpoints.token)
        answer = await self._reader.post(endpoints.token, form, egress=egress, tls=self._tls, within=TIMEOUT_SECONDS)
        if isinstance(answer, DocumentIssue):
            return ExchangeFailure(text=f"its token endpoint: {answer.text}")
        members = answer.content if isinstance(answer.content, dict) else {}
        if answer.status != 200:
            error = members.get("error")
            is_error_code = isinstance(error, str) and _ERROR_CODE.fullmatch(error) is not None
            text = f"its token endpoint answered {answer.status}" + (f" ({error})" if is_error_code else "")
            return ExchangeFailure(text=text, refused=answer.status < 500)
        access_token, id_token = members.get("access_token"), members.get("id_token")
        if not isinstance(access_token, str) or not isinstance(id_token, str):
            return ExchangeFailure(text="its token endpoint gave no access_token with an id_token")
        return ExchangedTokens(access_token=access_token, id_token=id_token)

    async def _read_endpoints(self) -> None:
        metadata = await self._discovery.read(self._reader, self._egress())
        endpoints = metadata if isinstance(metadata, DocumentIssue) else self._parse_endpoints(metadata)
        is_success = isinstance(endpoints, Endpoints)
        if is_success or isinstance(self._endpoints, DocumentIssue):
            self._endpoints = endpoints
        self._next_read_at = self._monotonic() + (FRESH_SECONDS if is_success else RETRY_SECONDS)

    def _parse_endpoints(self, metadata: Mapping[str, object]) -> Endpoints | DocumentIssue:
        """Return the endpoints in the metadata, or the error. Each must be an https URI, or http on loopback."""
        endpoints: dict[str, str] = {}
        for name in ("authorization", "token"):
            uri = metadata.get(f"{name}_endpoint")
            if not isinstance(uri, str) or not has_host(uri, "https", "http") or is_in_clear(uri) or "#" in uri:
                text = f"its metadata at {self._settings.metadata} name no {name}_endpoint that begins with https://"
                return DocumentIssue(text=text)
            endpoints[name] = uri
        return Endpoints(**endpoints)


def sign_in_checks(loaded: LoadedConfiguration, reader: DocumentReader) -> Iterator[Check]:
    """Yield the doctor's check of the provider; none without a provider."""
    settings = loaded.settings
    section = console_of(settings)
    oidc = None if section is None else section.oidc
    if oidc is not None:
        provider = SignInProvider(oidc, reader, lambda: settings.template().route.egress, time.monotonic)
        run = partial(examine_provider, provider, oidc.metadata)
        yield Check(area=Area.KEYS, subject=SETTING, timeout=3 * TIMEOUT_SECONDS + 2, run=run)


async def examine_provider(provider: SignInProvider, metadata: str) -> Sequence[Finding]:
    """Return the doctor's findings on the provider's endpoints and keys. `metadata`: the URI of the metadata."""
    endpoints = await provider.endpoints()
    if isinstance(endpoints, DocumentIssue):
        advice = "nobody can sign in until it can be read; check issuer or discovery, tls beside it, and egress"
        return [failure(Area.KEYS, SETTING, endpoints.text, advice)]

    sign_in_finding = ok(Area.KEYS, SETTING, f"operators sign in at {endpoints.authorization}")
    return [sign_in_finding, *judge_transmitter(SETTING, metadata, await provider.read_keys())]
