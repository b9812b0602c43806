"""`notifier demo`: the whole service at work on this machine alone."""

from typing import Annotated

import typer

EXAMPLES = (
    ("forty users sign out; takes some 12 seconds", "notifier demo"),
    ("a smaller one", "notifier demo --events 8"),
    ("in a script: 0 if every logout is accounted for", "notifier demo >demo.txt && echo good"),
)

SIGN_OUTS = 4.0  # seconds in which all users sign out, however many they are


def demo(
    events: Annotated[int, typer.Option("--events", min=1, max=200, help="How many users sign out.")] = 40,
) -> None:
    """See it work: no broker, no configuration, under 30 seconds.

    Five sample clients that really verify tokens (healthy, slow, flaky, rejecting, dead) are started here; users sign
    out; the real service delivers. At the end every delivery is accounted for, or the exit status is 1.
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
