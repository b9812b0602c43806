"""`notifier run`: the worker, until it is told to stop."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from notifier.adapters import logs
from notifier.adapters.live_configuration import LiveConfiguration, load
from notifier.app import Service

Config = Annotated[
    Path | None,
    typer.Option("-c", "--config", envvar="NOTIFIER_CONFIG", exists=True, dir_okay=False, help="The YAML file."),
]


def run(config: Config = None) -> None:
    """Take events from the queue and deliver their logouts, until SIGTERM or SIGINT.

    SIGHUP reads issuers, keys, clients and tokens again; so does a change of their files. A second SIGTERM or SIGINT
    ends the process at once: what was in flight is given back by the queue, and no logout is lost.

    Example: notifier run -c /etc/notifier/notifier.yaml
    """
    loaded = load(config, os.environ)
    logs.configure(loaded.settings.log.level, loaded.settings.log.format)
    service = Service(LiveConfiguration(config, os.environ, loaded))
    uvloop.run(_serve(service))


async def _serve(service: Service) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    reloads: set[asyncio.Task[bool]] = set()

    def end(number: signal.Signals) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    def reload() -> None:
        task = loop.create_task(service.reload(asked=True))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, number)
    loop.add_signal_handler(signal.SIGHUP, reload)
    await service.serve(stop)
