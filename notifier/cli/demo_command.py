"""The command `notifier demo`: the whole service at work on this machine."""

from typing import Annotated

import typer

EXAMPLES = (
    ("forty users sign out, in about 12 seconds", "notifier demo"),
    ("a shorter one", "notifier demo --events 8"),
    ("in a script: 0 if every logout is accounted for", "notifier demo >demo.txt && echo good"),
)

SIGN_OUTS = 4.0  # seconds in which all users sign out


def demo(
    events: Annotated[int, typer.Option("--events", min=1, max=200, help="The number of users who sign out.")] = 40,
) -> None:
    """Show notifier at work: no broker, no configuration, less than 30 seconds.

    It starts five sample clients that verify tokens (healthy, slow, flaky, rejecting, dead), signs users out, and lets
    the real service deliver. At the end it accounts for every delivery. If one is missing, the exit status is 1.
    """
    import uvloop

    from notifier.adapters.telemetry import logs
    from notifier.cli.screen import screen
    from notifier.demo.embedded import start
    from notifier.demo.story import Pace, play

    logs.configure("error", "auto")
    console = screen(width=100)
    pace = Pace(events=events, every=min(Pace().every, SIGN_OUTS / events))
    raise typer.Exit(uvloop.run(play(start, console, pace)))
