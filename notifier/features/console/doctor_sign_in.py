"""The doctor's checks of the provider at which operators sign in: can they, and can their tokens be verified?"""

import time
from collections.abc import Iterator, Sequence
from functools import partial

from notifier.features.console.console_settings import console_of
from notifier.features.console.sign_in_provider import WITHIN, SignInProvider
from notifier.network.http.issuer_document import IssuerDocument, UnreadDocument
from notifier.network.http.issuer_documents import DocumentReader
from notifier.operators.doctor.doctor import Area, Check, Finding, failed, ok
from notifier.operators.doctor.doctor_keys import examine_transmitter
from notifier.settings.service_settings import Settings

SETTING = "api.console.oidc"


def sign_in_checks(settings: Settings, reader: DocumentReader) -> Iterator[Check]:
    """Yield the checks, over the network. None without a provider."""
    section = console_of(settings)
    oidc = None if section is None else section.oidc
    if oidc is not None:
        provider = SignInProvider(oidc, reader, lambda: settings.template().route.egress, time.monotonic)
        run = partial(examine_provider, provider, oidc.metadata)
        yield Check(area=Area.KEYS, subject=SETTING, within=3 * WITHIN + 2, run=run)


async def examine_provider(provider: SignInProvider, metadata: str) -> Sequence[Finding]:
    """Read the endpoints and the keys."""
    endpoints = await provider.endpoints()
    if isinstance(endpoints, UnreadDocument):
        advice = "nobody can sign in until it can be read; check issuer or discovery, tls beside it, and egress"
        return [failed(Area.KEYS, SETTING, endpoints.text, advice)]

    async def keys(_uri: str) -> IssuerDocument | UnreadDocument:
        return await provider.read_keys()

    signed = ok(Area.KEYS, SETTING, f"operators sign in at {endpoints.authorization}")
    return [signed, *await examine_transmitter(SETTING, metadata, keys)]
