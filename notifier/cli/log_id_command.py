"""The command `notifier log-id`: prints the hash that stands for a user or session in logs."""

import os
from typing import Annotated

import typer

from notifier.model.errors import ConfigurationError, InputIssue
from notifier.operators.terminal.command_options import Config
from notifier.operators.terminal.output import say
from notifier.settings.config_file import read_sections
from notifier.settings.subject_key import CREATE_COMMAND, subject_key_file
from notifier.telemetry.logs import subject_hash


def log_id(
    sub: Annotated[str, typer.Argument(metavar="SUB", help="A sub or sid, as the events have it.")],
    config: Config = None,
) -> None:
    """Print the hash under which logs show a `sub` or `sid`.

    The key of the hash is in log.subject_key_file. With the embedded queue a worker makes one beside the queue's file.
    A log of level warning or error has no lines of attempts.

    Examples:
        # did alice's logout go out? every attempt and dead letter of alice
        grep "$(notifier log-id -c n.yaml alice)" notifier.log
        # the same, from a cluster
        kubectl logs -l app=notifier --tail=-1 | grep "$(notifier log-id -c n.yaml alice)"
        # workers on RabbitMQ need one key first: make it, name it in n.yaml, start them again
        (umask 077 && openssl rand -hex 32 > log.key)   # log: {subject_key_file: log.key}
    """
    settings = read_sections(config, os.environ, {"log", "queue"}).settings
    hashing = subject_hash(settings)
    if settings.log.subject != "hash":
        text = f'is "{settings.log.subject}", so the logs hold no hash; set it to "hash"'
        raise ConfigurationError([InputIssue("log.subject", text)])
    if not hashing.lasting:
        file = subject_key_file(settings)
        if file is not None:
            text = f"is not set, and {file}, which a worker creates when it starts, does not exist"
        else:
            text = f"is not set, so each worker hashes with a random key; set it: {CREATE_COMMAND}"
        raise ConfigurationError([InputIssue("log.subject_key_file", text)])
    say(hashing.log_id(sub))
