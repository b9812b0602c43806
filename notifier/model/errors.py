"""The exceptions of notifier. The failure of an attempt is not an exception but a value: see `outcome`.

NotifierError
├── ConfigurationError   the configuration cannot be used; carries every mistake
├── MalformedEvent       a message is not an event; carries every mistake
│   └── UnknownSource    the configuration of this worker does not have its source
├── UnknownVersion       a document of notifier was written by a later release
├── InternalFault        a fault of notifier for one issuer or client; carries the deferral `cause`
├── QueueError
│   ├── QueueUnavailable the queue cannot take a message now; try again later
│   │   ├── OneQueueUnavailable  only this queue; others take messages
│   │   │   └── QueueFull    it has refused the message
│   │   ├── DiskFull     its disk has no room
│   │   └── ChangeUncertain  the broker has not confirmed a change, and may still make it
│   ├── ChangeRefused    the pauses have no room for a change, or nobody could read it
│   └── TopologyMismatch a queue or exchange is missing, or exists with other arguments
└── SourceFault          a registry source could not be read
    └── AnswerFault      its answer cannot be used
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from notifier.model.outcome import Cause, TransportFailure

ERRNO_LIMIT = 4096  # Linux returns no errno from here on (MAX_ERRNO)


@dataclass(frozen=True, slots=True)
class InputIssue:
    """One mistake in a document: its path (`clients[2].sid`, empty for the whole document), and the remedy as text.

    `named`: the name of the list entry at this path, which is shown beside its number. `count`: the number of mistakes
    that this one stands for.
    """

    path: str
    text: str
    named: str = ""
    count: int = 1

    def __str__(self) -> str:
        """Return `path: text`, or only the text if it is about the whole document."""
        entry, bracket, member = self.path.partition("]")
        path = f"{entry}{bracket} ({self.named}){member}" if self.named and bracket else self.path
        return f"{path}: {self.text}" if path else self.text


class NotifierError(Exception):
    """The base of all exceptions that notifier raises."""


class _IssuesError(NotifierError):
    """An error that lists every mistake at once."""

    def __init__(self, mistakes: Sequence[InputIssue]) -> None:
        super().__init__("; ".join(str(mistake) for mistake in mistakes))
        self.mistakes = tuple(mistakes)


class ConfigurationError(_IssuesError):
    """The configuration cannot be used. The command line shows the mistakes and exits 2."""


class MalformedEvent(_IssuesError):  # noqa: N818  a state, not a mistake
    """The message is not an event. It becomes a dead letter, `malformed_event`; over HTTP the response is 400.

    `data` is its JSON, if it could be parsed.
    """

    def __init__(self, mistakes: Sequence[InputIssue], data: Mapping[str, object] | None = None) -> None:
        super().__init__(mistakes)
        self.data = data


class UnknownSource(MalformedEvent):
    """This worker's configuration does not have the source of a message. Another worker's may, during an update."""


class UnknownVersion(NotifierError):  # noqa: N818  a state, not a mistake
    """A later release wrote this document. This worker leaves it to a worker of that release."""


class InternalFault(NotifierError):  # noqa: N818  the name gives the origin of the fault
    """An internal fault affects one issuer or client (key, CA file, proxy). The delivery is deferred."""

    def __init__(self, cause: Cause, text: str) -> None:
        super().__init__(text)
        self.cause = cause


class QueueError(NotifierError):
    """The queue cannot be used as requested."""


class QueueUnavailable(QueueError):  # noqa: N818  a state, not a mistake
    """The queue cannot take a message now (not connected, blocked, refusing, or the confirm was lost)."""


class OneQueueUnavailable(QueueUnavailable):
    """This queue has taken no message for some seconds. Another queue may take it."""


class QueueFull(OneQueueUnavailable):
    """This queue has refused the message (nack), so it has no copy of it."""


class MessageRefused(QueueUnavailable):
    """The broker has refused a message that was in flight: this one, or another of the channel."""


class QueueBusy(QueueUnavailable):
    """Another process scans these messages, and has not ended within some seconds."""


class PassStopped(QueueError):  # noqa: N818  a state, not a mistake
    """The caller stopped a pass before it held the messages."""


class DiskFull(QueueUnavailable):
    """The disk of the embedded queue is full; the text names its file."""


class ChangeUncertain(QueueUnavailable):
    """The broker has not confirmed a change in time. It may take effect afterwards, or be lost."""


class ChangeRefused(QueueError):  # noqa: N818  a state, not a mistake
    """A change of the pauses would exceed a limit of their document, which remains as it was."""


class TopologyMismatch(QueueError):  # noqa: N818  a state, not a mistake
    """A queue or exchange is missing, or exists with other arguments; the text names both and the remedy."""


class SourceFault(NotifierError):  # noqa: N818  the name gives the origin of the fault
    """A registry source could not be read. The text has reason and remedy, on one line and without any secret."""


class AnswerFault(SourceFault):
    """An answer arrived but cannot be used: it is too large, or not JSON."""


def describe_error(error: BaseException) -> str:
    """Return an error that nothing expected, for operators: notifier's text, or the system's with its files.

    Of another error only the class is returned, since its text may quote what was read, such as a `sub` or a password.
    Never raises: libraries raise OSError with any arguments.
    """
    if isinstance(error, NotifierError):
        return str(error)
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "reason", None)  # such as WRONG_VERSION_NUMBER
        return f"{type(error).__name__} ({reason})" if reason else type(error).__name__
    if isinstance(error, socket.gaierror) and isinstance(error.strerror, str):
        return error.strerror  # the resolver's text, whose number is not the system's
    if not isinstance(error, OSError) or isinstance(error, socket.gaierror | socket.herror):
        return type(error).__name__
    if type(error.errno) is not int or not 0 < error.errno < ERRNO_LIMIT:
        return type(error).__name__
    text = os.strerror(error.errno)
    files = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes | Path)]
    return f"{text}: {' -> '.join(files)}" if files else text


def iter_leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the error itself, or the errors of a group and its groups."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from iter_leaves(inner)
    else:
        yield error


def find_own_errors(error: BaseException) -> tuple[NotifierError, ...]:
    """Return the errors of a failure, which may be a group; none if one of them is not a NotifierError."""
    leaves = tuple(iter_leaves(error))
    own_errors = tuple(leaf for leaf in leaves if isinstance(leaf, NotifierError))
    return own_errors if len(own_errors) == len(leaves) else ()


def exit_code(error: NotifierError) -> int:
    """Return the exit status of a command that ends with this error: 2 for wrong use or configuration, else 1."""
    return 2 if isinstance(error, ConfigurationError | MalformedEvent) else 1


class CancelledRequest(asyncio.CancelledError):
    """The task of a request was cancelled. `meaning`: what its timeout would have meant then, without the seconds."""

    def __init__(self, meaning: TransportFailure | InternalFault) -> None:
        super().__init__()
        self.meaning = meaning
