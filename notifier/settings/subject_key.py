"""The key by which logs hash `sub` and `sid`: configured, or made beside the embedded queue's file.

The embedded queue has a single worker, so its key can be generated. Workers on RabbitMQ must share a configured key.
"""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp

from notifier.model.errors import ConfigurationError, InputIssue
from notifier.model.printable import counted
from notifier.settings.secret_text import is_blank, read_text
from notifier.settings.service_settings import Settings

MIN_KEY_BYTES = 16
KEY_FILE_SUFFIX = ".subject-key"  # after the name of the queue's file
CREATE_COMMAND = "(umask 077 && openssl rand -hex 32 > log.key) makes one; name it, the same for all workers"


def read_subject_key(settings: Settings) -> str | None:
    """Return the key that hashes `sub` and `sid` for logs; None if there is none. Raises ConfigurationError."""
    file = subject_key_file(settings)
    # The file beside the embedded queue may not exist yet. A configured file must.
    if file is not None and (file == settings.log.subject_key_file or file.exists()):
        if is_blank(text := read_text(file)):
            raise ConfigurationError([InputIssue(str(file), f"is empty; write a key into it: {CREATE_COMMAND}")])
        return text.strip()
    return None if settings.log.subject_key is None else settings.log.subject_key.get_secret_value()


def find_short_key(settings: Settings) -> InputIssue | None:
    """Return a warning if the key is short enough to be guessed. Raises ConfigurationError."""
    key = read_subject_key(settings) if settings.log.subject == "hash" else None
    if key is None or (count := len(key.encode())) >= MIN_KEY_BYTES:
        return None
    text = (
        f"has {counted(count, 'byte')}; it should have at least {MIN_KEY_BYTES}: whoever guesses it can find each"
        f" user in the logs. {CREATE_COMMAND}"
    )
    return InputIssue("log.subject_key" if settings.log.subject_key is not None else "log.subject_key_file", text)


def subject_key_file(settings: Settings) -> Path | None:
    """Return the file with the key: the configured file, or the file beside the embedded queue.

    The latter may not exist before a worker starts. None if there is no file.
    """
    queue = settings.queue.sqlite_file
    if settings.log.subject_key_file is not None or settings.log.subject_key is not None:
        return settings.log.subject_key_file
    if queue is None or settings.log.subject != "hash":
        return None
    return queue.with_name(queue.name + KEY_FILE_SUFFIX)


def is_subject_key_missing(settings: Settings) -> bool:
    """Return True if logs contain hashes without a shared key, so that each worker would use a different key."""
    has_key = settings.log.subject_key is not None or subject_key_file(settings) is not None
    return settings.log.subject == "hash" and not has_key


def make_subject_key(settings: Settings) -> Path | None:
    """Create the file with the key beside the embedded queue, unless it exists. Raises OSError.

    Return the file, or the configured file, which is never created; None if there is no file. A complete file is linked
    to the final name. Therefore two concurrent processes use the same key.
    """
    file = subject_key_file(settings)
    if file is None or file == settings.log.subject_key_file or file.exists():
        return file
    descriptor, draft = mkstemp(dir=file.parent, prefix=f".{file.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as out:
            out.write(secrets.token_hex(32) + "\n")
            out.flush()
            os.fsync(out.fileno())
        with suppress(FileExistsError):
            os.link(draft, file)
    finally:
        Path(draft).unlink()
    return file
