"""The command `notifier demo`: runs the whole service on this machine."""

import webbrowser
from typing import Annotated

import typer
import uvloop

from notifier.demo.console_demo import show_console
from notifier.demo.embedded import start_service
from notifier.demo.story import Pace, play_story
from notifier.operators.terminal.screen import make_screen
from notifier.telemetry import log_output

MAX_SIGN_OUT_SECONDS = 4.0  # in which all users sign out


def demo(
    events: Annotated[int, typer.Option("--events", min=1, max=200, help="The number of users who sign out.")] = 40,
    console: Annotated[
        bool, typer.Option("--console", help="Watch an incident, and repair it, in the console: pages for operators.")
    ] = False,
    no_open: Annotated[bool, typer.Option("--no-open", help="With --console: print the address alone.")] = False,
) -> None:
    """Show notifier at work: no broker, no configuration, less than 30 seconds.

    It starts five sample clients that verify tokens (healthy, slow, flaky, rejecting, dead), signs users out, and lets
    the real service deliver. At the end it accounts for every delivery. If one is missing, the exit status is 1.

    With --console it opens the console, signed in, on an incident: a client goes down, its logouts are retried and
    given up, it comes back, and you replay them. If you do nothing, the demo does.

    Examples:
        # forty users sign out, in about 12 seconds
        notifier demo
        # a shorter one
        notifier demo --events 8
        # in a browser, as an operator: a client goes down, and is repaired
        notifier demo --console
        # in a script: 0 if every logout is accounted for
        notifier demo >demo.txt && echo good
    """
    log_output.configure("error", "auto")
    terminal = make_screen()
    if console:
        uvloop.run(show_console(terminal, None if no_open else webbrowser.open))
        return
    if no_open:
        raise typer.BadParameter("belongs to --console", param_hint="--no-open")
    pace = Pace(events=events, interval_seconds=min(Pace().interval_seconds, MAX_SIGN_OUT_SECONDS / events))
    raise typer.Exit(uvloop.run(play_story(start_service, terminal, pace)))
