"""The command `notifier explain`: what a reason, a cause or an alert means, and what to do."""

import sys
from typing import Annotated

import typer

from notifier.cli.command_options import Json
from notifier.cli.output import say, say_json

EXAMPLES = (
    ("why was a logout given up?", "notifier explain rejected_token"),
    ("an alert at three in the morning", "notifier explain NotifierDeadLetters"),
    ("the whole runbook", "notifier explain --all | less"),
)


def explain(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="A reason, a cause or an alert. Default: list them all.", show_default=False
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Print the whole runbook, as Markdown.")] = False,
    as_json: Json = False,
) -> None:
    """Explain a reason, a cause or an alert: what it means, what to do, how to see that it is over.

    The text is a section of docs/runbook.md.
    """
    from notifier.operations.runbook import runbook, sections

    if everything:
        say(runbook(), nl=False)
        return
    known = sections()
    if name is None:
        _list([(section.name, section.group) for section in known.values()], as_json=as_json)
        return
    section = known.get(name.lower())
    if section is None:
        from difflib import get_close_matches

        near = get_close_matches(name.lower(), known, n=1)
        hint = f"; did you mean {known[near[0]].name}?" if near else ""
        say(f"notifier: there is no explanation of {name}{hint}; `notifier explain` lists all names", err=True)
        raise typer.Exit(2)
    if as_json:
        say_json({"name": section.name, "group": section.group, "text": section.text})
    elif sys.stdout.isatty():
        from rich.markdown import Markdown

        from notifier.cli.screen import screen

        screen().print(Markdown(f"# {section.name}\n\n{section.text}"))
    else:
        say(f"{section.name}\n\n{section.text}", nl=False)


def _list(names: list[tuple[str, str]], *, as_json: bool) -> None:
    if as_json:
        say_json([{"name": name, "group": group} for name, group in names])
        return
    last = None
    for name, group in names:
        if group != last:
            say(f"{group}:")
            last = group
        say(f"  {name}")
