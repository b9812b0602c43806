"""The doctor's checks of sources: can the tokens of their transmitters be verified?"""

from collections.abc import Iterator
from functools import partial

from notifier.features.sources.source_settings import SetSettings, sources_of
from notifier.model.client import EgressPolicy, TlsFiles
from notifier.network.http.issuer_document import DocumentIssue, IssuerDocument, discovered_egress
from notifier.network.http.issuer_documents import DocumentReader
from notifier.operators.doctor.doctor import Area, Check
from notifier.operators.doctor.doctor_keys import examine_transmitter
from notifier.settings.service_settings import Settings

READ_TIMEOUT_SECONDS = 10.0  # for a transmitter's keys


def source_checks(settings: Settings, reader: DocumentReader) -> Iterator[Check]:
    """Yield a check for each source that takes Security Event Tokens."""
    egress = settings.template().route.egress
    for name, source in sources_of(settings).items():
        if source.http is not None and (verification := source.http.set) is not None:
            subject = f"sources.{name}.http.set"
            run = partial(
                examine_transmitter, subject, verification.jwks_uri, partial(_read_keys, verification, reader, egress)
            )
            yield Check(area=Area.KEYS, subject=subject, timeout=2 * READ_TIMEOUT_SECONDS, run=run)


async def _read_keys(
    verification: SetSettings, reader: DocumentReader, egress: EgressPolicy, uri: str
) -> IssuerDocument | DocumentIssue:
    """Read the keys, with the egress rules for an address that the operator configured."""
    tls = TlsFiles() if verification.tls is None else verification.tls.files()
    return await reader.read(
        uri, egress=discovered_egress(egress, uri, verification.jwks_uri), tls=tls, within=READ_TIMEOUT_SECONDS
    )
