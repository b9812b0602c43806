"""The command `notifier explain`: what a reason, a cause, an alert or a setting means, and what to do."""

import os
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markdown import Markdown

from notifier.configuration.configured_feature import ConfiguredFeature, settings_model
from notifier.operators.doctor.runbook import runbook, sections
from notifier.operators.doctor.settings_reference import gone_since, near_settings, settings_called
from notifier.operators.terminal.command_options import Json
from notifier.operators.terminal.output import joined, say, say_json
from notifier.operators.terminal.screen import screen

WIDTH = 80  # columns, if neither COLUMNS nor a terminal says it
INDENT = 8  # columns of a list in a list, at most
_LINK = re.compile(r"\[([^\[\]]+)\]\([^()\[\]]*\)")


def explain(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="A reason, a cause, an alert or a setting. Default: list all but settings."
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Print the whole runbook.")] = False,
    as_json: Json = False,
) -> None:
    """Explain a reason, a cause, an alert or a setting: what it means, what to do, how to see that it is over.

    The text is a section of docs/runbook.md, or rows of docs/configuration.

    Examples:
        # why was a logout given up?
        notifier explain rejected_token
        # an alert at three in the morning
        notifier explain NotifierDeadLetters
        # a setting, or all of a section; also as an error names it, or its variable
        notifier explain delivery.timeout
        # the whole runbook
        notifier explain --all | less
    """
    if everything:
        _show(runbook())
        return
    known = sections()
    if name is None:
        _list([(section.name, section.group) for section in known.values()], as_json=as_json)
        return
    section = known.get(name.lower())
    if section is None:
        _explain_settings(name, [each.name for each in known.values()], context.obj, as_json=as_json)
        return
    if as_json:
        say_json({"name": section.name, "group": section.group, "text": _for_here(section.text)})
    else:
        say(f"{section.name}\n")
        _show(section.text)


def _explain_settings(name: str, others: list[str], features: Sequence[ConfiguredFeature], *, as_json: bool) -> None:
    """Tell the setting of this name, or those of this section. Exits with 2 if there is none."""
    found = settings_called(name)
    if not found and (gone := gone_since(name, settings_model(features))) is not None:
        say_json([{"name": name, "gone": gone}]) if as_json else say(f"{name} {gone}")
        return
    if not found:
        near = near_settings(name, others)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        say(f"notifier: there is no explanation of {name}{hint}; `notifier explain` lists all names", err=True)
        raise typer.Exit(2)
    if as_json:
        say_json([asdict(setting) for setting in found])
        return
    for setting in found:
        facts = [setting.type]
        if setting.default != "–":
            facts.append("required" if setting.default == "required" else f"default: {setting.default}")
        if setting.restart:
            facts.append("needs a restart" if setting.restart == "yes" else "to name another needs a restart")
        _show(f"**`{setting.name}`** ({'; '.join(facts)})\n\n{setting.meaning}\n")


def _show(markdown: str) -> None:
    """Print it as people read it, to a pipe too."""
    console = screen(width=WIDTH)
    lines = _LINK.sub(r"\1", _for_here(markdown)).split("\n")
    # A cell of a table is narrower than a line.
    console.print(Markdown("\n".join(x if x.startswith("|") else joined(x, console.width - INDENT) for x in lines)))


def _for_here(text: str) -> str:
    """The commands as they are typed here: NOTIFIER_CONFIG stands for `-c FILE`."""
    return text.replace(" -c n.yaml", "") if os.environ.get("NOTIFIER_CONFIG") else text


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
