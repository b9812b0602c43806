"""`notifier log-id`: under which hash a user or session stands in the logs."""

import os
from typing import Annotated

import typer

from notifier.cli.options import Config

EXAMPLES = (
    ("every attempt to log alice out", 'grep "$(notifier log-id -c n.yaml alice)" notifier.log'),
    ("give all workers one key first, in n.yaml", "log: {subject_key_file: secrets/log}"),
)


def log_id(
    sub: Annotated[str, typer.Argument(metavar="SUB", help="A sub or sid as the events have it.", show_default=False)],
    config: Config = None,
) -> None:
    """Print the hash under which logs show a `sub` or `sid`."""
    from notifier.adapters.config_file import read_part
    from notifier.app import subject_hash
    from notifier.domain.errors import ConfigurationError, Mistake

    settings = read_part(config, os.environ, {"log"}).settings
    hashing = subject_hash(settings)
    if not hashing.lasting:
        text = (
            "no key is set, so each worker hashes with a random one of its own that nobody knows; "
            "set log.subject_key_file, the same for all workers"
        )
        raise ConfigurationError([Mistake("log.subject_key_file", text)])
    if settings.log.subject != "hash":
        text = f'is "{settings.log.subject}": no hash stands in the logs'
        raise ConfigurationError([Mistake("log.subject", text)])
    typer.echo(hashing.log_id(sub))
