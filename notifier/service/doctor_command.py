"""The command `notifier doctor`: checks everything that a logout depends on, and prints remedies."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer
import uvloop

from notifier.configuration.clients.source_reading import DirectReader
from notifier.configuration.configured_feature import reader_builder
from notifier.features import FEATURES
from notifier.model.printable import counted, printable
from notifier.operators.doctor.doctor import Finding, Severity
from notifier.operators.terminal.command_options import Config, Json, load_configuration, quiet_logs
from notifier.operators.terminal.output import make_progress, say_json
from notifier.operators.terminal.screen import Screen, make_screen
from notifier.service.doctor_checks import DoctorScope, examine_installation

MAX_LISTED_OK = 20  # successful checks of one area; a larger number is shown as one line
MAX_NAMED_FAILURES = 5  # in the last line
MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "failed": ("✗", "bold red")}


def doctor(
    config: Config = None,
    canary: Annotated[
        str | None,
        typer.Option(
            metavar="CLIENT", help="Send this client a real token for a user and a session that cannot exist."
        ),
    ] = None,
    iss: Annotated[
        str | None, typer.Option("--iss", help="The issuer of the canary's client. Needed if the client has several.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Send the canary even if its channel has a risk, which it names.")
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Make no network connection.")] = False,
    as_json: Json = False,
) -> None:
    """Check everything that a logout depends on, with a remedy for each problem.

    The queue: connection, permissions, topology, version, alarms. Each issuer: its published keys against ours, its
    metadata, its clock. Each registry source: whether it can be read. Each client: host name, egress rules, connection,
    certificate, preset. The doctor ends no session, and sends clients nothing without --canary.

    In each area failures come first, then warnings. The last lines have the totals and name the failures.

    The exit status is 1 if a check fails (warnings do not count), and 2 if the configuration has mistakes.

    Examples:
        # before the first worker starts, and when something is wrong
        notifier doctor -c n.yaml
        # does the client accept our tokens?
        notifier doctor -c n.yaml --canary shop
        # only the problems, for a script
        notifier doctor -c n.yaml --json | jq '.[] | select(.level != "ok")'
    """
    if offline and canary is not None:
        raise typer.BadParameter("a canary needs the network; leave --offline out", param_hint="--canary")
    quiet_logs()
    sources = DirectReader(None if offline else reader_builder(FEATURES))
    loaded = load_configuration(config, FEATURES, as_json=as_json, answer_of=sources)
    scope = DoctorScope(offline=offline, canary=canary, canary_issuer=iss, risk_accepted=yes)
    findings = uvloop.run(examine_installation(loaded, sources, scope, make_progress("looking")))
    if as_json:
        say_json(list(map(asdict, findings)), indent=2)
    else:
        _print(findings)
    raise typer.Exit(any(finding.level is Severity.FAILED for finding in findings))


def _print(findings: Sequence[Finding]) -> None:
    """Print the findings below a heading for each area, failures first, and the totals with the names of failures."""
    console = make_screen()
    area = ""
    ok_counts = Counter(finding.area for finding in findings if finding.level == "ok")
    for finding in findings:
        is_summarized = ok_counts[finding.area] > MAX_LISTED_OK
        if finding.area != area:
            area = finding.area
            console.print(area, style="bold")
            if is_summarized:
                _print_line(console, "ok", f"{ok_counts[area]:,} are well")
        if finding.level == "ok" and is_summarized:
            continue
        _print_line(console, finding.level, printable(f"{finding.subject}: {finding.text}"))
        if finding.advice:
            console.print(printable(f"    → {finding.advice}"))
    counts = Counter(finding.level.value for finding in findings)
    console.print(f"{counts['failed']} failed, {counted(counts['warning'], 'warning')}, {counts['ok']} well")
    failed = [f"{finding.area} {finding.subject}" for finding in findings if finding.level is Severity.FAILED]
    if failed:
        more = f" and {len(failed) - MAX_NAMED_FAILURES} more" if len(failed) > MAX_NAMED_FAILURES else ""
        console.print(printable(f"failed: {'; '.join(failed[:MAX_NAMED_FAILURES])}{more}"), style=MARKS["failed"][1])


def _print_line(console: Screen, level: str, text: str) -> None:
    mark, style = MARKS[level]
    console.print(f"  {mark} {text}", style=style)
