"""The command `notifier pauses`: lists the pauses of clients."""

import time

import typer

from notifier.model.moment import format_moment_for_people
from notifier.model.pauses import PauseDocument, expire, in_force
from notifier.model.printable import printable
from notifier.model.registry import Registry
from notifier.operators.deliveries.pause_command import list_worker_lines
from notifier.operators.deliveries.pause_request import PauseResult, ask_workers, count_expiring, pause_document
from notifier.operators.terminal.command_options import Config, Json
from notifier.operators.terminal.known_registry import load_known_registry
from notifier.operators.terminal.output import say, say_json
from notifier.operators.terminal.queue_access import load_queue_part, run_on_queue
from notifier.operators.terminal.screen import Grid, make_screen
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_port import Queue
from notifier.telemetry.audit import operating_user


def pauses(context: typer.Context, *, config: Config = None, as_json: Json = False) -> None:
    """List the clients that operators have paused: who, why, and until when. Also the last pauses that have ended.

    The command shows how many pending deliveries expire before the end, and which workers do not apply the pauses, such
    as those of a former release. The exit status is then 1.

    Examples:
        notifier pauses -c n.yaml
        # those in force
        notifier pauses -c n.yaml --json | jq '.pauses[] | select(.ended_at == null)'
    """
    part = load_queue_part(config, log_from="warning")
    known = load_known_registry(config, context.obj)
    now = time.time()

    async def act(queue: Queue, _options: RepairOptions) -> tuple[PauseDocument, PauseResult, dict[str, int] | None]:
        document = expire(await queue.register.read(), now)
        ends = {key: pause.until for key, pause in in_force(document, now).items()}
        counts = await count_expiring(queue, ends, Registry() if known is None else known.registry) if ends else None
        by_id = None if counts is None else {each.id: counts[each.key] for each in in_force(document, now).values()}
        return document, await ask_workers(queue, document.version, operating_user(), time.time), by_id

    document, asked, expiring = run_on_queue(part.settings.queue, act, progress_text="read", opening=False)
    if as_json:
        rows = [pause_document(each) | {"expiring": (expiring or {}).get(each.id)} for each in document.pauses]
        say_json({"pauses": rows, "workers": asked.document()["workers"]})
    else:
        table = Grid("client", "issuer", "paused by", "until", "ended", "expiring:", "reason")
        for each in document.pauses:
            by = "" if each.ended_by is None else f" by {each.ended_by}"
            ended = "" if each.ended_at is None else f"{format_moment_for_people(each.ended_at)}{by}"
            count = (expiring or {}).get(each.id, 0)
            values = (each.client_id, each.iss, each.who, format_moment_for_people(each.until), ended)
            table.add_row(*map(printable, values), f"{count:,}" if count else "", printable(each.reason))
        if document.pauses:
            make_screen().print(table)
        else:
            say("no client is paused by an operator")
        say("\n".join(map(printable, list_worker_lines(asked))))
    raise typer.Exit(0 if asked.is_applied else 1)
