"""What a worker reads once, at its start, looked at beforehand: secrets, and the TLS files of the API and the queue.

A client's TLS files are not among them: they concern that client alone, whose deliveries wait for them.
"""

from collections.abc import Callable

from notifier.adapters.configuration.config_file import read_credentials, read_subject_key
from notifier.adapters.tls.listener import ServerTls, ServerTlsFiles
from notifier.adapters.tls.pem_files import connecting_context
from notifier.domain.errors import ConfigurationError, Mistake, OurFault
from notifier.settings import Settings


def mistakes_of_start(settings: Settings) -> list[Mistake]:
    """Every mistake in them."""
    mistakes: list[Mistake] = []
    looks: tuple[Callable[[Settings], object], ...] = (_password, read_subject_key, _listener, _broker)
    for look in looks:
        try:
            look(settings)
        except ConfigurationError as error:
            mistakes += error.mistakes
    return mistakes


def _password(settings: Settings) -> None:
    read_credentials(settings.queue)


def _listener(settings: Settings) -> None:
    if settings.api is not None and settings.api.tls is not None:
        tls = settings.api.tls
        ServerTls(
            ServerTlsFiles(cert_file=tls.cert_file, key_file=tls.key_file, client_ca_file=tls.client_ca_file), "api"
        )


def _broker(settings: Settings) -> None:
    if settings.queue.tls is not None:
        tls = settings.queue.tls
        try:
            connecting_context(ca_file=tls.ca_file, cert_file=tls.cert_file, key_file=tls.key_file)
        except OurFault as fault:
            raise ConfigurationError([Mistake("queue.tls", str(fault))]) from fault
