"""The command `notifier retry`: attempts the pending deliveries of a client now."""

import time
from typing import Annotated

import typer

from notifier.model.printable import counted, printable
from notifier.operators.deliveries.retry_now import RetryMembers, RetryResult, preview_retry, retry_now
from notifier.operators.deliveries.retry_request import RetryRequest
from notifier.operators.deliveries.waiting_command import WAITING_TABLE
from notifier.operators.status.claimed_actions import CommandAudit
from notifier.operators.terminal.command_options import Config, Json, takes
from notifier.operators.terminal.known_registry import end_if_missing, find_client
from notifier.operators.terminal.output import say, say_json
from notifier.operators.terminal.queue_access import load_queue_part, run_on_queue
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_port import Queue
from notifier.telemetry.audit import operating_user

UNKNOWN_TEXT = "cancelled meanwhile, or at a worker that has not reported them"


@takes(RetryMembers)
def retry(
    context: typer.Context,
    *,
    config: Config = None,
    members: RetryMembers,
    yes: Annotated[bool, typer.Option("--yes", help="Has no effect: a retry asks for no confirmation.")] = False,
    as_json: Json = False,
) -> None:
    """Attempt the pending deliveries of a client now, instead of when they are due.

    Each worker immediately attempts one delivery. If the client accepts it, its other deliveries follow, delayed and
    parked ones too, as fast as the client and its limits allow. Otherwise all stay pending as before. Nothing is lost,
    and other clients are not affected.

    A delay that the client requested (Retry-After) lasts until its end, unless you give --force. A client that an
    operator or the registry has paused is not attempted: end that first, by notifier resume or paused: false.

    The command shows the progress of the workers, and ends once they have nothing more to do for the client. Ctrl-C
    ends the display; the workers continue. It needs no API: it reaches the workers through the queue. The exit status
    is 1 if deliveries are still pending, if results are unknown, or if the client is unknown.

    Examples:
        # the pending deliveries of a client, and why they are pending
        notifier retry -c n.yaml --client-id shop --dry-run
        # the client works again: do not wait for the next attempt
        notifier retry -c n.yaml --client-id shop
        # also the deliveries that its Retry-After delays
        notifier retry -c n.yaml --client-id shop --force
    """
    del yes  # for scripts that pass it to each repair
    part = load_queue_part(config, log_from="warning")
    target, dry_run, force = find_client(part, config, context.obj, members), "dry_run" in members, "force" in members
    request = RetryRequest(key=target.key, who=operating_user(), force=force, registry=lambda: target.registry)
    iss, client_id = target.key

    async def act(queue: Queue, options: RepairOptions) -> RetryResult:
        waiting = WAITING_TABLE.open_messages(queue)
        if dry_run:
            return await preview_retry(queue, waiting, request, options)
        return await retry_now(queue, waiting, request, options)

    result = run_on_queue(part.settings.queue, act, progress_text="settled", dry_run=dry_run)
    if not dry_run:
        audit = CommandAudit(part.settings.queue)
        audit.write("retried_now", who=request.who, iss=iss, client_id=client_id, force=force, **result.document())
    if as_json:
        say_json({"client_id": client_id, "iss": iss, "dry_run": dry_run, **result.document()})
    else:
        say(_format_result(request, result, dry_run=dry_run))
    if not result.pending_before and result.unfinished is None:
        end_if_missing(target.known, client_id, iss)
    is_open = result.pending_after or result.unknown or (not result.waited and result.unfinished is not None)
    raise typer.Exit(1 if is_open and not dry_run else 0)


def _format_result(request: RetryRequest, result: RetryResult, *, dry_run: bool) -> str:
    """Return the text that shows the result of the retry, or of its dry run."""
    iss, name = map(printable, request.key)
    if not result.waited:
        return result.unfinished or (
            f"nothing is pending for {name} at {iss}; a worker may be delivering some, and dead"
            f" letters are not retried: notifier dead-letters list --client-id {name}"
        )
    lines = [f"{counted(result.waited, 'delivery')} waited for {name}"]
    if dry_run:
        lines = [f"{counted(result.waited, 'delivery')} would be tried"]
        lines += [f"  {count:,} after {reason or 'no attempt'}" for reason, count in result.pending_before.items()]
    else:
        lines += result.account.format_lines(f"given up: notifier dead-letters list --client-id {name}")
        pending_after = sum(result.pending_after.values())
        lines.append(f"{pending_after:,} still wait{'s' if pending_after == 1 else ''}")
        lines += [f"  {reason or 'no attempt'}: {count:,}" for reason, count in result.pending_after.items()]
        if result.unknown:
            lines.append(f"{result.unknown:,} with unknown results: {UNKNOWN_TEXT}")
    return "\n".join([*lines, *_list_advice(result)])


def _list_advice(result: RetryResult) -> list[str]:
    """Return a line for each reason why deliveries are still pending, with its remedy, and for incomplete figures."""
    account, lines, now = result.account, list[str](), time.time()
    if result.delayed_by_client:
        until = "" if account.paused_until is None else f", for {account.paused_until - now:,.0f} s more"
        lines.append(f"{result.delayed_by_client:,} wait because the client asked for it (Retry-After){until}: --force")
    if account.put_off.get("paused"):
        lines.append("the client is paused: `notifier resume`, or set paused to false in the registry, to attempt them")
    if result.pending_after and account.next_try is not None and account.paused_until is None:
        lines.append(f"the client is unreachable; the next attempt is in {max(0.0, account.next_try - now):,.0f} s")
    if result.workers > result.answered:
        missing = counted(result.workers - result.answered, "worker")
        lines.append(f"{missing} did not answer: the figures leave out what it does")
    if result.unfinished is not None:
        lines.append(result.unfinished)
    return lines
