"""Examines the embedded queue's file for the doctor, and changes nothing. Blocks: it reads the whole file."""

import os
from pathlib import Path

from notifier.model.errors import QueueError
from notifier.queues.queue_state import FileState
from notifier.queues.sqlite.file import examine, recognise
from notifier.queues.sqlite.lock import worker_at


def examine_file(path: Path) -> FileState:
    """The state of the file, for the user who runs this."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        folder = path.absolute().parent
        usable = os.access(folder, os.W_OK | os.X_OK)
        fault = None if usable else f"the folder {folder} is missing, or not ours to write to"
        return FileState(path=path, size=None, worker=False, fault=fault)
    except OSError as error:
        return FileState(path=path, size=None, worker=False, fault=f"{path} cannot be read: {error.strerror}")
    fault = None if os.access(path, os.R_OK | os.W_OK) else f"{path} is not ours to read and write"
    if fault is None:
        try:
            recognise(path)
            examine(path)
        except QueueError as error:
            fault = str(error)
    return FileState(path=path, size=size, worker=worker_at(path), fault=fault)
