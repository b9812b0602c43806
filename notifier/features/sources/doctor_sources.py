"""The doctor's checks of sources that receive Security Event Tokens: can the tokens be verified?"""

from collections.abc import Iterator, Sequence
from functools import partial

from notifier.configuration.loading import LoadedConfiguration
from notifier.features.sources.source_settings import SetSettings, sources_of
from notifier.model.client import EgressPolicy
from notifier.network.http.issuer_documents import DocumentReader
from notifier.operators.doctor.doctor import Area, Check, Finding
from notifier.operators.doctor.doctor_keys import judge_transmitter

READ_TIMEOUT_SECONDS = 10.0  # for the JWK Set of a transmitter, which signs the tokens


def source_checks(loaded: LoadedConfiguration, reader: DocumentReader) -> Iterator[Check]:
    """Yield a check for each source that receives Security Event Tokens."""
    egress = loaded.settings.template().route.egress
    for name, source in sources_of(loaded.settings).items():
        set_settings = None if source.http is None else source.http.set
        if set_settings is not None:
            subject = f"sources.{name}.http.set"
            run = partial(_examine_keys, subject, set_settings, reader, egress)
            yield Check(area=Area.KEYS, subject=subject, timeout=2 * READ_TIMEOUT_SECONDS, run=run)


async def _examine_keys(
    subject: str, settings: SetSettings, reader: DocumentReader, egress: EgressPolicy
) -> Sequence[Finding]:
    document = await reader.read_configured(settings.jwks_uri, egress, settings.tls, READ_TIMEOUT_SECONDS)
    return judge_transmitter(subject, settings.jwks_uri, document)
