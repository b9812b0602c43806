"""The doctor's checks of sources that receive Security Event Tokens: can the tokens be verified?"""

from collections.abc import Iterator
from functools import partial

from notifier.features.sources.source_settings import SetSettings, sources_of
from notifier.model.client import EgressPolicy, TlsFiles
from notifier.network.http.issuer_document import DocumentIssue, IssuerDocument, discovered_egress
from notifier.network.http.issuer_documents import DocumentReader
from notifier.operators.doctor.doctor import Area, Check
from notifier.operators.doctor.doctor_keys import examine_transmitter
from notifier.settings.service_settings import Settings

READ_TIMEOUT_SECONDS = 10.0  # for the JWK Set of a transmitter, which signs the tokens


def source_checks(settings: Settings, reader: DocumentReader) -> Iterator[Check]:
    """Yield a check for each source that receives Security Event Tokens."""
    egress = settings.template().route.egress
    for name, source in sources_of(settings).items():
        set_settings = None if source.http is None else source.http.set
        if set_settings is not None:
            subject = f"sources.{name}.http.set"
            read_keys = partial(_read_keys, set_settings, reader, egress)
            run = partial(examine_transmitter, subject, set_settings.jwks_uri, read_keys)
            yield Check(area=Area.KEYS, subject=subject, timeout=2 * READ_TIMEOUT_SECONDS, run=run)


async def _read_keys(
    settings: SetSettings, reader: DocumentReader, egress: EgressPolicy, uri: str
) -> IssuerDocument | DocumentIssue:
    """Return the JWK Set at `uri`. Addresses that the operator configured need not be public."""
    tls = TlsFiles() if settings.tls is None else settings.tls.files()
    egress = discovered_egress(egress, uri, settings.jwks_uri)
    return await reader.read(uri, egress=egress, tls=tls, within=READ_TIMEOUT_SECONDS)
