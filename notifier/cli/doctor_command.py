"""`notifier doctor`: whether everything that a logout depends on is well, and what to do where it is not."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Self

import typer

from notifier.cli.options import Config, Json, quiet_logs
from notifier.cli.output import say
from notifier.domain.printable import json_text, printable

if TYPE_CHECKING:
    from notifier.cli.screen import Screen
    from notifier.operations.doctor import Finding

EXAMPLES = (
    ("before the first worker starts, and whenever something is odd", "notifier doctor -c n.yaml"),
    ("a real token for nobody: does the client take ours?", "notifier doctor -c n.yaml --canary shop"),
    ("what is wrong, for a script", "notifier doctor -c n.yaml --json | jq '.[] | select(.level != \"ok\")'"),
)

MANY = 20  # findings of one kind that are all well: more are one line
MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "failed": ("✗", "bold red")}


def doctor(
    config: Config = None,
    canary: Annotated[
        str | None,
        typer.Option(metavar="CLIENT", help="Send this client a real token, for a user and session that cannot exist."),
    ] = None,
    issuer: Annotated[
        str | None, typer.Option(help="The issuer of the canary's client, if it has several.", show_default=False)
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Connect to nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Look at everything that a logout depends on, and say what to do.

    The queue: can it be reached, permissions, topology, version, alarms. Each issuer: its published keys and ours, its
    metadata, its clock. Each client: name, egress, connection, certificate, preset. No session is touched, and without
    --canary no client is sent anything.

    The exit status is 1 if anything fails (warnings do not count), and 2 if the configuration has mistakes.
    """
    import uvloop

    from notifier.adapters.configuration.live_configuration import load
    from notifier.app.doctor_checks import DoctorScope, examine_installation
    from notifier.domain.errors import ConfigurationError
    from notifier.operations.doctor import Severity

    if offline and canary is not None:
        raise typer.BadParameter("a canary is sent over the network; leave --offline out", param_hint="--canary")
    quiet_logs()
    try:
        loaded = load(config, os.environ)
    except ConfigurationError as error:
        if not as_json:
            raise
        mistakes = [{"path": mistake.path, "text": mistake.text} for mistake in error.mistakes]
        say(json_text({"mistakes": mistakes}, indent=2))
        raise typer.Exit(2) from None
    scope = DoctorScope(offline=offline, canary=canary, canary_issuer=issuer)
    with _Progress() as progress:
        found = uvloop.run(examine_installation(loaded, scope, progress.start, progress.advance))
    if as_json:
        say(json_text([_row(finding) for finding in found], indent=2))
    else:
        _print(found)
    raise typer.Exit(any(finding.level is Severity.FAILED for finding in found))


class _Progress:
    """A bar on stderr, where somebody looks at it."""

    def __init__(self) -> None:
        from rich.progress import Progress

        from notifier.cli.screen import screen

        console = screen(err=True)
        self._bar = Progress(console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("looking", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def start(self, checks: int) -> None:
        """So many are to be done."""
        self._bar.update(self._task, total=checks)

    def advance(self) -> None:
        """One more is done."""
        self._bar.advance(self._task)


def _row(finding: Finding) -> dict[str, str]:
    return {
        "area": finding.area.value,
        "subject": finding.subject,
        "level": finding.level.value,
        "text": finding.text,
        "advice": finding.advice,
    }


def _print(found: Sequence[Finding]) -> None:
    from notifier.cli.screen import screen

    console = screen(width=100)
    area = ""
    well = Counter(finding.area for finding in found if finding.level == "ok")
    for finding in found:
        if finding.area != area:
            area = finding.area
            console.print(area, style="bold", highlight=False)
            if well[finding.area] > MANY:
                _line(console, "ok", f"{well[finding.area]:,} are well")
        if finding.level == "ok" and well[finding.area] > MANY:
            continue
        _line(console, finding.level, printable(f"{finding.subject}: {finding.text}"))
        if finding.advice:
            console.print(printable(f"    → {finding.advice}"), highlight=False, soft_wrap=True)
    counts = Counter(finding.level.value for finding in found)
    console.print(f"{counts['failed']} failed, {counts['warning']} warnings, {counts['ok']} well", highlight=False)


def _line(console: Screen, level: str, text: str) -> None:
    mark, style = MARKS[level]
    console.print(f"  {mark} {text}", style=style, highlight=False, soft_wrap=True)
