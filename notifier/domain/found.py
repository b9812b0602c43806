"""What a pass over a queue gives of each message: a summary of what is meant, and its body if that is asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, TypeAlias, TypeVar

from notifier.domain.frozen import replace
from notifier.domain.message import Message

S = TypeVar("S")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found(Generic[S]):
    """A message that a pass came across. `summary` is None if it is not meant."""

    message: Message
    summary: S | None


Reader: TypeAlias = Callable[[Message], Found[S]]
"""Reads one message, and keeps no more of it than the pass needs."""


def reader_of(
    summarise: Callable[[Message], S], meant: Callable[[Message, S], bool], *, whole: bool
) -> Callable[[Message], Found[S]]:
    """A reader of what is meant: `whole`, or as summaries only."""

    def see(message: Message) -> Found[S]:
        summary = summarise(message)
        matches = meant(message, summary)
        kept = message if matches and whole else replace(message, body=b"", headers=MappingProxyType({}))
        return Found(message=kept, summary=summary if matches else None)

    return see
