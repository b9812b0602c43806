"""The commands `notifier dead-letters replay` and `discard`."""

import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from notifier.configuration.clients.clients_file import load_registry
from notifier.configuration.clients.source_reading import DirectReader
from notifier.configuration.configured_feature import ConfiguredFeature, reader_builder, readers_of, settings_model
from notifier.model.defaults import MAX_EVENT
from notifier.model.documents.dead_letter import load_dead_letter
from notifier.model.durations import parse_duration
from notifier.model.errors import ConfigurationError, UnknownVersion
from notifier.model.ids import new_id
from notifier.model.message import Message
from notifier.operators.deliveries.dead_letter_filter import RepairMembers, ReplayMembers
from notifier.operators.deliveries.dead_letters_access import DEAD_LETTER_TABLE, read_filter_options
from notifier.operators.deliveries.message_table import (
    CommandContext,
    finish_repair,
    log_repair,
    remove_messages,
    require_condition,
)
from notifier.operators.deliveries.readmission import (
    DEFAULT_SUB_ONLY_MAX_AGE_SECONDS,
    KeptDeadLetter,
    ReplayRules,
    readmit,
)
from notifier.operators.deliveries.repair_pass import MAX_RATE, MIN_RATE
from notifier.operators.deliveries.repair_result import RepairResult
from notifier.operators.deliveries.replay_now import Replay, ReplayRequest, ReplayResult
from notifier.operators.terminal.command_options import Config, Json, takes
from notifier.operators.terminal.output import say
from notifier.operators.terminal.queue_access import load_queue_part, run_on_queue
from notifier.queues.passes import RepairOptions
from notifier.queues.queue_port import Queue
from notifier.settings.config_file import load_settings
from notifier.telemetry.audit import operating_user


def parse_rate(text: str) -> float:
    """Return the messages per second that an option has. Raises BadParameter."""
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not MIN_RATE <= rate <= MAX_RATE:
        text = f"{text} is not a number of dead letters a second from {MIN_RATE} to {MAX_RATE:,.0f}, such as 50 or 0.5"
        raise typer.BadParameter(text)
    return rate


Rate = Annotated[
    float | None,
    typer.Option(parser=parse_rate, metavar="NUMBER", help="At most this many a second. Default: no limit."),
]


WaitOption = Annotated[str, typer.Option(metavar="DURATION", help="How long to wait for the results; 0 does not wait.")]


@takes(ReplayMembers)
def replay(
    context: typer.Context,
    *,
    config: Config = None,
    members: ReplayMembers,
    rate: Rate = None,
    wait: WaitOption = "30s",
    yes: Annotated[bool, typer.Option("--yes", help="Has no effect: a replay never asks.")] = False,
    as_json: Json = False,
) -> None:
    """Deliver dead letters again, each with a new token.

    Fix the cause first: `dead-letters list` counts the dead letters by client and reason, and `explain REASON`
    describes the remedy. Then try --dry-run, which shows what a replay would do. Select dead letters by ID or by
    options; a dead letter must match all of them. --all selects every dead letter.

    A replayed dead letter is a new delivery: attempts, backoff and ages start again. The dead letter is deleted as soon
    as its delivery is durable. If it fails again, it returns to the dead letters until the next replay.

    The command then shows the results: delivered, failed again and why, given up again. It ends when no more results
    are expected, after --wait (30s) at the latest; the workers continue. Ctrl-C ends the wait too.

    Some dead letters stay, and the output counts them by reason: not_after has passed; the event is still malformed; or
    the token has no sid, and a worker first received the delivery longer ago than sub_only_max_age. Such a token would
    also end newer sessions of the user. To allow that, give --end-newer-sessions.

    The exit status is 0 if all selected dead letters were replayed, and none of them was given up again by then. It is
    1 if some stay or were given up again, if an ID is unknown, if the replay stopped early, or if results are unknown,
    since somebody changed the dead letters meanwhile. Deliveries that still wait do not count, nor does what is beyond
    --limit. --dry-run has the exit status of the replay.

    With --rate, other commands have access to the dead letters meanwhile: the replay makes short passes, whose
    deliveries become due one after the other.

    Ctrl-C stops after the current batch; the same command continues. With --rate, the deliveries of the last pass still
    become due. A replay that is killed may deliver one batch twice on RabbitMQ, which does no harm. The workers log the
    replay with your name.

    Examples:
        # what would happen
        notifier dead-letters replay -c n.yaml --client-id shop --dry-run
        # a client that works again, gently
        notifier dead-letters replay -c n.yaml --client-id shop --rate 50
        # one dead letter
        notifier dead-letters replay -c n.yaml 6f1c…
        # a client was registered meanwhile
        notifier dead-letters replay -c n.yaml --reason unknown_client
    """
    filter_ = read_filter_options(members)
    del yes  # for scripts that give it to each repair
    require_condition(filter_, members)
    wait_seconds, dry_run, end_newer_sessions = _parse_wait(wait), "dry_run" in members, "end_newer_sessions" in members
    settings = load_queue_part(config, log_from="warning").settings.queue
    rules = _load_rules(config, context.obj, end_newer_sessions=end_newer_sessions)
    request = ReplayRequest(id=new_id(), who=operating_user(), filter_=filter_, rules=rules)
    act, limit = partial(_replay_and_watch, request, wait_seconds), members.get("limit")
    result, replay_result = run_on_queue(
        settings, act, progress_text="replayed", opening=not dry_run, rate=rate, limit=limit, dry_run=dry_run
    )
    if not dry_run:
        log_repair("replayed", settings, filter_, result, end_newer_sessions=end_newer_sessions)
    finish_repair(
        DEAD_LETTER_TABLE, "replayed", CommandContext(config, context.obj), filter_, result, dry_run=dry_run,
        as_json=as_json, replay_result=replay_result,
    )  # fmt: skip


async def _replay_and_watch(
    request: ReplayRequest, wait_seconds: float, queue: Queue, options: RepairOptions
) -> tuple[RepairResult, ReplayResult | None]:
    """Replay the dead letters. Return the result and, if some were replayed, the results after `wait_seconds`."""
    replay_ = Replay(queue, DEAD_LETTER_TABLE.open_messages(queue), request)
    result = await replay_.run(options)
    if options.dry_run or not result.done or result.failed or not wait_seconds:
        return result, None
    return result, await replay_.watch(options, wait_seconds)


def _parse_wait(wait: str) -> float:
    try:
        return parse_duration(wait)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--wait") from None


@takes(RepairMembers)
def discard(
    context: typer.Context,
    *,
    config: Config = None,
    members: RepairMembers,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Delete dead letters permanently: their clients are not notified.

    The command shows the number and asks for confirmation, unless --yes. `dead-letters export` keeps a copy. The
    workers log the deletion with your name; with NOTIFIER_LOG__LEVEL=info, stderr names each dead letter.

    Examples:
        # keep a copy, then
        notifier dead-letters discard -c n.yaml --client-id gone
        # old dead letters, from a script
        notifier dead-letters discard -c n.yaml --until 30d --yes
    """
    filter_ = read_filter_options(members)
    remove_messages(DEAD_LETTER_TABLE, CommandContext(config, context.obj), filter_, members, yes=yes, as_json=as_json)


def _load_rules(config: Path | None, features: Sequence[ConfiguredFeature], *, end_newer_sessions: bool) -> ReplayRules:
    """Load the registry and the readers of sources that decide about a replay. Without a registry, defaults apply."""
    settings = registry = None
    if config is not None:
        try:
            settings = load_settings(config, os.environ, settings_model(features))
            registry = load_registry(settings, DirectReader(reader_builder(features)))
        except ConfigurationError:
            text = f"a delivery without sid counts as too old after {DEFAULT_SUB_ONLY_MAX_AGE_SECONDS:g} s"
            say(f"notifier: the registry of clients cannot be read; {text}", err=True)
    return ReplayRules(
        registry=registry, new_id=new_id, max_event=MAX_EVENT, end_newer_sessions=end_newer_sessions,
        readers=readers_of(features, settings),
    )  # fmt: skip


def preview_replay(message: Message, config: Path | None, features: Sequence[ConfiguredFeature]) -> str:
    """Describe what a replay would do with the dead letter."""
    rules = _load_rules(config, features, end_newer_sessions=False)
    try:
        readmission = readmit(load_dead_letter(message), rules, time.time())
    except UnknownVersion as newer:
        return f"stays: {newer}"
    if isinstance(readmission, KeptDeadLetter):
        return f"stays: {readmission.text}"
    return f"would go to {readmission.queue} anew"
