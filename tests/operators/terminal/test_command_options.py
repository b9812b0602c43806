"""Options of commands that are derived from the members of an operation."""

from typing import Annotated, Any, TypedDict

from pydantic import Field

from notifier.operators.terminal.command_options import takes


class _Members(TypedDict, total=False):
    attempts_over: Annotated[int, Field(ge=0, description="More attempts than this")]
    client_id: Annotated[str, Field(description="The client")]


def test_zero_is_a_condition_and_an_option_not_given_is_none() -> None:
    """A command that removes messages must not ignore a condition that was given."""
    received: list[dict[str, Any]] = []

    @takes(_Members)
    def command(*, members: dict[str, Any]) -> None:
        received.append(members)

    command(attempts_over=0, client_id=None)
    assert received == [{"attempts_over": 0}]
