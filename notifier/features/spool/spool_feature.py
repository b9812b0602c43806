"""The feature `spool`: keeps the sign-outs of senders that do not retry while the queue takes none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from notifier.configuration.configured_feature import FeaturePart
from notifier.feature import Feature, FeatureContext, FeatureRuntime
from notifier.model.errors import InputIssue

if TYPE_CHECKING:
    from pathlib import Path

    from notifier.configuration.loading import LoadedConfiguration
    from notifier.model.registry import Registry
    from notifier.network.http.issuer_documents import DocumentReader
    from notifier.operators.doctor.doctor import Check, Finding
    from notifier.settings.service_settings import Settings


def _read(settings: Settings, _registry: Registry, invalid_sections: frozenset[str]) -> FeaturePart:
    """Return an error if the queue is a file, and a warning without senders."""
    folder = None if settings.spool is None else settings.spool.folder
    mistakes, warnings = list[InputIssue](), list[InputIssue]()
    if folder is not None and "queue" not in invalid_sections and settings.queue.sqlite_file is not None:
        text = "has no use with the embedded queue, which is a file itself: remove it, or set queue.url to a broker's"
        mistakes.append(InputIssue("spool", text))
    if folder is not None and not (settings.relays or settings.upstreams or settings.sources):
        text = "has no effect without relays, upstreams or sources: other publishers send again after a 503"
        warnings.append(InputIssue("spool", text))
    return FeaturePart(mistakes=mistakes, warnings=warnings, fixed={"spool.folder": folder})


def _run(context: FeatureContext) -> FeatureRuntime:
    from notifier.features.spool.spool import Spool

    settings, live = context.live.current.settings, context.live
    if settings.spool is None:
        return FeatureRuntime()
    spool = Spool(
        settings.spool.folder,
        context.queue,
        lambda: live.current.settings.template().retry,
        context.observe,
    )
    return FeatureRuntime(
        once=spool,
        families=spool.families,
        troubles=spool.troubles,
        stays_ready=spool.has_room,
        lifespan=spool.running(context.draining, settings.shutdown_grace),
    )


def _checks(loaded: LoadedConfiguration, _reader: DocumentReader) -> Iterator[Check]:
    """Yield the check of the folder."""
    from notifier.model.own_thread import read_in_thread
    from notifier.operators.doctor.doctor import Area, Check

    spool = loaded.settings.spool
    if spool is None:
        return

    examine = partial(read_in_thread, "spool", partial(_examine_folder, spool.folder))
    yield Check(area=Area.WORKER, subject="spool.folder", timeout=10.0, run=examine)


def _examine_folder(path: Path) -> Sequence[Finding]:
    """Return what is wrong with the folder, and which files need an operator. Blocks."""
    import os

    from notifier.features.spool.spool_folder import DAMAGED_SUFFIX
    from notifier.model.errors import describe_error
    from notifier.operators.doctor.doctor import Area, failure, ok, warning
    from notifier.settings.file_owners import UnusableFileError, open_own_folder

    try:
        with open_own_folder(path, of_owner=not os.geteuid()) as folder, os.scandir(folder) as entries:
            damaged = sorted(entry.name for entry in entries if entry.name.endswith(DAMAGED_SUFFIX))
    except FileNotFoundError:
        return [ok(Area.WORKER, "spool.folder", f"{path} does not exist here; a worker makes it at its start")]
    except (OSError, UnusableFileError) as error:
        text = f"{path}: {describe_error(error)}"
        return [failure(Area.WORKER, "spool.folder", text, "give the folder to the workers' user")]
    if damaged:
        text = f"{path} has damaged files: {', '.join(damaged[:3])}{' and more' if len(damaged) > 3 else ''}"
        return [warning(Area.WORKER, "spool.folder", text, "look into them, then remove them: see docs/spool.md")]
    return [ok(Area.WORKER, "spool.folder", f"{path} can be used")]


SPOOL = Feature(name="spool", read=_read, run=_run, checks=_checks)
