"""`notifier run`: runs a worker until it receives a stop signal."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import os
import resource
import signal
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import typer

from notifier import __version__
from notifier.model.errors import ConfigurationError, NotifierError, exit_code, find_own_errors
from notifier.model.shared_resources import shared_timer
from notifier.operators.terminal.command_options import Config

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from notifier.service.service import Service
    from notifier.settings.service_settings import Settings
    from notifier.telemetry.tracing import Tracing

REQUEST_SIGNALS = (signal.SIGHUP, signal.SIGUSR1)
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_OTEL_MODULES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
_INSTALL_OTEL = "needs OpenTelemetry, which is not installed: pip install 'logout-notifier[otel]'"
CLOSE_SECONDS = 3.0  # after `shutdown_grace`; the chart and the systemd unit kill the process 5 to 10 s after it


def run(config: Config = None) -> None:
    """Run a worker: take events from the queue and deliver their logouts, until SIGTERM or SIGINT.

    SIGTERM or SIGINT drains the worker. It takes nothing more, finishes what it began within shutdown_grace, gives the
    rest back to the queue, and exits with 0, at most 3 s later, even if the broker is silent. A second signal ends the
    process at once. No logout is lost either way.

    The worker reads its files again when they change, on SIGHUP, and when `notifier reload` asks. The log names changed
    settings that need a restart. SIGUSR1 turns the level of the log to debug, and back.

    Examples:
        # a worker by its configuration
        notifier run -c /etc/notifier/notifier.yaml
        # any setting can come from the environment
        NOTIFIER_QUEUE__URL=amqp://mq/ notifier run -c n.yaml
        # log more of a running worker; once more to undo it
        kill -USR1 "$(pidof -x notifier)"
        # read the files and the registry sources now
        kill -HUP "$(pidof -x notifier)"
    """
    _ignore_requests()  # until the worker has started
    gc.disable()  # a start frees almost no object, and garbage collection would take a fifth of its time
    try:
        service, settings, as_json = _build_service(config)
    finally:
        gc.enable()
    import uvloop

    exit_timer = shared_timer("exit", settings.shutdown_grace + CLOSE_SECONDS, _exit_now)
    try:
        uvloop.run(_serve(service, exit_timer.start))
    except (NotifierError, BaseExceptionGroup) as failure:
        errors = find_own_errors(failure)
        if not as_json or not errors:
            raise
        _log_failure(errors)
        raise typer.Exit(max(map(exit_code, errors))) from None
    finally:
        exit_timer.cancel()


def _build_service(config: Path | None) -> tuple[Service, Settings, bool]:
    """Read the configuration, and return the worker, its settings, and whether it logs JSON."""
    _import_structlog()
    from notifier.configuration.clients.answers import HeldAnswers
    from notifier.configuration.configured_feature import key_kinds_of
    from notifier.configuration.file_mistakes import find_start_errors
    from notifier.configuration.library_examinations import log_hooks
    from notifier.configuration.live_configuration import LiveConfiguration
    from notifier.configuration.loading import load
    from notifier.features import FEATURES
    from notifier.service.service import Service
    from notifier.telemetry import log_output
    from notifier.telemetry.metrics import SignatureCounts
    from notifier.tokens.signers import Signers

    _raise_file_limit()
    answers, signatures = HeldAnswers(), SignatureCounts()
    signers = Signers(key_kinds_of(FEATURES), signatures.count)
    loaded = load(
        config, os.environ, FEATURES, find_more=find_start_errors, answer_of=answers.load_cached, signers=signers
    )
    as_json = log_output.configure(loaded.settings.log.level, loaded.settings.log.format)
    loaded.log_warnings()
    log_hooks(loaded.settings)
    _log_queue_file(loaded.settings.queue.sqlite_file)
    _make_subject_key(loaded.settings)
    answers.log_unusable()
    tracing = build_tracing(os.environ)
    live = LiveConfiguration(config, os.environ, loaded, answers, signers)
    service = Service(live, tracing=tracing, signatures=signatures)
    return service, loaded.settings, as_json


def build_tracing(environ: Mapping[str, str]) -> Tracing | None:
    """Return the writer of traces; None if the environment names no collector or turns OpenTelemetry off.

    The environment may name a collector for all programs of a cluster, so if OpenTelemetry is not
    installed, this is only logged, and None is returned.
    """
    if not any(environ.get(name) for name in _ENDPOINTS):
        return None
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if not _is_otel_installed():
        import structlog

        structlog.get_logger().warning("tracing_off", reason=_INSTALL_OTEL)
        return None
    from notifier.telemetry.tracing import Tracing

    return Tracing(__version__)


def _is_otel_installed() -> bool:
    try:
        return all(importlib.util.find_spec(name) is not None for name in _OTEL_MODULES)
    except ModuleNotFoundError:
        return False


def _import_structlog() -> None:
    """Import structlog without rich, which structlog uses only for tracebacks. It saves 30 ms and 5 MiB.

    While `sys.modules` has None for a module, its import raises ImportError.
    """
    if "rich" in sys.modules:
        return
    modules: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]
    modules["rich"] = None
    try:
        import structlog  # noqa: F401
    finally:
        del modules["rich"]


def _log_failure(errors: Sequence[NotifierError]) -> None:
    """Log the errors for which the worker ends. With a JSON log, stderr must not have other lines."""
    import structlog

    log = structlog.get_logger()
    for error in errors:
        if isinstance(error, ConfigurationError):
            for mistake in error.mistakes:
                log.error("ended", setting=mistake.path, reason=mistake.text)
        else:
            log.error("ended", reason=str(error))


def _exit_now() -> None:
    """End the process, because an unresponsive broker, collector or disk delays its end.

    Attempts have ended or were cancelled. The broker redelivers unacked messages, so no logout is lost.
    """
    import structlog

    hint = "a connection or a file did not close in time; unacknowledged messages are redelivered"
    structlog.get_logger().warning("stop_cut_short", hint=hint)
    os._exit(0)


def _log_queue_file(file: Path | None) -> None:
    """Log the path of the embedded queue, and warn of another queue file in the working directory."""
    if file is None:
        return
    import structlog

    from notifier.settings.queue_settings import QUEUE_FILE

    log = structlog.get_logger()
    log.info("queue_file", file=str(file))
    other = Path(QUEUE_FILE).absolute()
    if other != file and other.exists():
        hint = "another queue lies where this worker was started: it takes nothing from there"
        log.warning("queue_file_elsewhere", file=str(other), hint=hint)


def _make_subject_key(settings: Settings) -> None:
    """With the embedded queue, create the key that hashes `sub` and `sid` in the log if none exists. Log its path."""
    import structlog

    from notifier.settings.subject_key import make_subject_key

    try:
        file = make_subject_key(settings)
    except OSError as error:  # without it the log hashes by a key of this process
        structlog.get_logger().warning("log_key_not_made", error=error.strerror)
        return
    if file is not None and file != settings.log.subject_key_file:
        hint = "sub and sid are hashed with this key; notifier log-id reads it"
        structlog.get_logger().info("log_key_file", file=str(file), hint=hint)


def _ignore_requests() -> None:
    """Ignore SIGHUP and SIGUSR1 during the start. By default they would end the process."""
    for number in REQUEST_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _raise_file_limit() -> None:
    """Raise the limit of open files to the system's maximum, since each connection to a client takes a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(service: Service, on_stop: Callable[[], None]) -> None:
    """Run the worker until SIGTERM or SIGINT, and handle SIGHUP and SIGUSR1. `on_stop` is called at the first signal.

    A second SIGTERM or SIGINT ends the process at once.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    reloads: set[asyncio.Task[None]] = set()

    def end(number: signal.Signals) -> None:
        if stop.is_set():
            os._exit(128 + number)
        on_stop()
        stop.set()

    def reload() -> None:
        task = loop.create_task(service.reloading.on_signal())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    # Handlers of uvloop may receive a signal twice. When its loop closes, it restores the default handlers, by which
    # SIGHUP and SIGUSR1 end the process.
    handlers: dict[signal.Signals, Callable[[], None]] = {
        number: partial(end, number) for number in (signal.SIGTERM, signal.SIGINT)
    }
    handlers |= zip(REQUEST_SIGNALS, (reload, service.log_level.toggle), strict=True)
    for number, handler in handlers.items():
        signal.signal(number, lambda *_, handler=handler: loop.call_soon_threadsafe(handler))
    try:
        await service.serve(stop)
    finally:
        _ignore_requests()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
