"""The command `notifier explain`: prints what a reason, cause, alert, state or setting means, and what to do."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Annotated

import typer

from notifier.model.outcome import Cause
from notifier.model.trouble import TroubleKind
from notifier.operators.deliveries.readmission import KeepReason
from notifier.operators.doctor.manual import RunbookSection, find_settings, load_runbook, parse_sections, read_page
from notifier.operators.terminal.command_options import Json
from notifier.operators.terminal.output import say, say_json

CAUSES_HEADING = "Causes of deferrals"
_WORDS_HEADING, _MEMBERS_HEADING = "Words of status, waiting and the log", "Members"
_OPEN, _CLOSED = "The client's circuit is open.", "The client's circuit is closed: attempts run."
_HALF_OPEN = "One delivery is attempted at a client that is down."
_PARKED = (
    "A bucket is a queue for deliveries to clients that are down or requested a pause. To park is to put a delivery "
    "there. A large bucket is for clients with over 1,000 parked deliveries, which delay no others there."
)
_UNRESPONSIVE = "An attempt has had no answer for more than a second."
_LATE = (
    "All deliveries of the message started over half a second ago, and some have not ended. The message is set aside: "
    "it does not count against the prefetch, so it delays no other."
)
_ENDED_EARLY = "Attempts at clients that hang were ended before their timeout, since other clients needed the slots."
_FAILING = "The last attempt failed. The next deliveries are attempted all the same."
_DEFERRED = (
    "Deliveries are deferred without an attempt: each waits, and is attempted later. `notifier status` shows the cause "
    "under `waits for`, and counts the deferrals of a second. A delivery may be deferred several times."
)
_DELAYED = "The delivery is in a delay queue until its next attempt: a retry, or a deferral."
_DEAD = "A dead letter is a delivery or event that was given up, or an unreadable message. An operator replays it."
_PENDING = "Deliveries whose next attempt is due later: `notifier waiting list`."
_WAITS_FOR = "The cause of the last deferral, or empty if deliveries wait after a failure."
_REASON = "The result of the last attempt that failed, with the HTTP status of the answer."
_EXPIRES = (
    "When the first of the pending deliveries is given up if the reason of its wait lasts until then: after `max_age` "
    "or `sub_only_max_age`, later by `max_paused` for `paused: true` or an internal fault, and after `registry.grace` "
    "for an unknown client. It becomes a dead letter with the reason `expired` or `unknown_client`."
)
_NOT_READY = "The worker consumes no queue. The text names the reason, as `/readyz` does."
_ATTEMPTS = "Tokens that were sent, one request each. A delivery has one or more attempts."
_SKIPPED = "A client of an event has no address for logouts, so there is no delivery to it."
_LEFT_OUT = "Clients of a registry source with invalid rows, which get no logouts: `notifier check` names them."
_KEPT = "The dead letter stays after a replay"
WORDS: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(("unreachable", "rests", "down", "open", "client_failing"), (_OPEN, "circuit")),
    **dict.fromkeys(("probing", "tried", "half_open", "probe"), (_HALF_OPEN, "circuit")),
    **dict.fromkeys(("closed", "client_recovered"), (_CLOSED, "circuit")),
    **dict.fromkeys(("parked", "bucket", "large_bucket"), (_PARKED, "circuit")),
    "client_served": ("What was parked for a client that recovered is delivered.", "circuit"),
    **dict.fromkeys(("unresponsive", "hangs", "silent"), (_UNRESPONSIVE, "timeout")),
    "attempts_ended_early_total": (_ENDED_EARLY, "timeout"),
    **dict.fromkeys(("late", "set_aside", "queue_set_aside"), (_LATE, "")),
    "held": ("Messages that a worker has received and not acked.", ""),
    "ready": ("Messages of a queue that no worker has received.", ""),
    "events": ("The queue of fresh events. Queues of sources belong to it.", "NotifierBacklogOld"),
    "retries": ("The queue of deliveries that came due: retries and deferrals.", "NotifierBacklogOld"),
    "bulk": ("The queue of mass logouts. Other events go first.", "NotifierBulkBacklogOld"),
    **dict.fromkeys(("dead", "dead_letter", "dead_letters", "given_up"), (_DEAD, "NotifierDeadLetters")),
    "oldest": ("The age of the oldest message, or of the oldest dead letter.", "NotifierBacklogOld"),
    "newest": ("The age of the newest dead letter.", ""),
    **dict.fromkeys(("waits", "pending", "waiting"), (_PENDING, "")),
    **dict.fromkeys(("waits_for", "cause"), (f"{_WAITS_FOR} `notifier explain CAUSE` describes it.", "")),
    **dict.fromkeys(("reason", "last_answer", "answer"), (f"{_REASON} `notifier explain REASON` describes it.", "")),
    "count": ("The number of these messages.", ""),
    "may_expire_before": ("How many pending deliveries may expire before the end of the pause.", "paused"),
    "where": ("The place of a pending delivery: `delayed` or `parked`.", ""),
    "since": ("How long the oldest of these deliveries has been pending, or when a problem began.", ""),
    **dict.fromkeys(("next", "next_attempt", "due"), ("When the first pending delivery is attempted again.", "")),
    "last_success": ("When the client last accepted a token.", "NotifierClientFailing"),
    "last_failure": ("When an attempt at the client last failed.", "NotifierClientFailing"),
    "expires": (_EXPIRES, "expired"),
    "client": ("A relying party, by its `client_id` and issuer.", ""),
    "in_flight": ("Attempts that run, or whose result is not durable yet.", ""),
    "draining": ("The worker stops: it takes no message, and ends its attempts.", ""),
    **dict.fromkeys(("not_ready", "not_consuming"), (_NOT_READY, "NotifierNotReady")),
    "answered": ("Workers whose state is shown. Others are busy, draining or unreachable.", "NotifierWorkerDown"),
    **dict.fromkeys(("attempts", "attempt"), (_ATTEMPTS, "")),
    "retried": ("Attempts that failed and are repeated later.", "NotifierClientFailing"),
    "skipped": (_SKIPPED, "NotifierClientSkipped"),
    "left_out": (_LEFT_OUT, "NotifierRegistryChanged"),
    **dict.fromkeys(("untried", "not_tried"), ("No attempt was made at the client since the workers started.", "")),
    "with_problems": ("Clients that are not healthy.", "NotifierClientFailing"),
    "recovered": (_CLOSED, "circuit"),
    "missing": ("The broker lacks this queue or exchange: `notifier topology declare` creates it.", ""),
    "different": ("The queue exists with other arguments: `notifier topology show` lists them.", ""),
    "failed": ("The attempt failed, or the check of the doctor.", "NotifierClientFailing"),
    **{str(reason): (f"{_KEPT}: {reason.explanation}.", "") for reason in KeepReason},
    **dict.fromkeys(("failing", "fails"), (_FAILING, "NotifierClientFailing")),
    **dict.fromkeys(("deferred", "put_off", "deferral", "deferrals"), (_DEFERRED, "")),
    "delayed": (_DELAYED, ""),
    **dict.fromkeys(("healthy", "well"), ("The last attempt succeeded, or none was made.", "")),
    **{
        str(kind): ("`notifier status` shows this problem while it lasts.", kind.section)
        for kind in TroubleKind
        if kind != TroubleKind.QUEUE  # a section of the settings
    },
}
"""Words of `status`, its JSON, `waiting`, the console and the log: the meaning, and a section of the runbook or ""."""
_RUNBOOK_LINK, _CODE = re.compile(r"\(runbook\.md#(\w+)\)"), re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\[([^\[\]]+)\]\([^()\[\]]*\)")


def explain(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="A reason, cause, alert, state, metric, log event, JSON member or setting. Default: list all"
            " but settings.",
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Print the whole runbook.")] = False,
    as_json: Json = False,
) -> None:
    """Explain a name: its meaning, what to do, and how to see that it is over.

    NAME is a reason, a cause, an alert, a word of a screen, a metric, an event or member of the log, or a setting. The
    text is a section of docs/runbook.md, or rows of docs/metrics.md, docs/words.md or docs/configuration.

    Examples:
        # why was a logout given up?
        notifier explain rejected_token
        # words of status, a table or the console
        notifier explain set aside
        # an alert at three in the morning
        notifier explain NotifierDeadLetters
        # a setting, or all of a section; also as an error names it, or its variable
        notifier explain delivery.timeout
        # the whole runbook
        notifier explain --all | less
    """
    if everything:
        _print_markdown(load_runbook())
        return
    sections = load_sections()
    if not words:
        _print_names(_list_names(sections.values()), as_json=as_json)
        return
    name = " ".join(words)
    section = sections.get(re.sub("[ -]+", "_", name.strip().lower()).removeprefix("notifier_"))
    if section is None or (section.group == _MEMBERS_HEADING and find_settings(name)):
        _explain_settings(name, as_json=as_json)
        return
    if as_json:
        say_json({"name": section.name, "group": section.group, "text": _adapt_to_terminal(section.text)})
    else:
        say(f"{section.name}\n")
        _print_markdown(section.text)


def load_sections() -> dict[str, RunbookSection]:
    """Return the sections of the runbook, then WORDS, then the rows of `metrics.md` and `words.md`, by name."""
    runbook = parse_sections()
    sections = dict(runbook)
    words = ((word, meaning, name, _WORDS_HEADING) for word, (meaning, name) in WORDS.items())
    for word, meaning, name, group in (*words, *_list_rows()):
        if word not in sections:
            text = f"{meaning}\n\n{runbook[name.lower()].text}" if name else f"{meaning}\n"
            sections[word] = RunbookSection(name=word, group=group, text=text)
    return sections


def _list_rows() -> Iterator[tuple[str, str, str, str]]:
    """Yield each name in the tables of metrics, log events and members: its meaning, its runbook section, its group."""
    group = ""
    for line in "\n".join(map(read_page, ("metrics.md", "words.md"))).splitlines():
        if line.startswith("## "):
            group = line.removeprefix("## ")
        elif line.startswith("| `"):
            first, *others = line.strip().strip("|").split("|")
            labels = f" Labels: {others[0].strip()}." if len(others) > 1 and others[0].strip() else ""
            meaning = f"{others[-1].strip()}.{labels}"
            section = _RUNBOOK_LINK.search(meaning)
            for name in _CODE.findall(first):
                yield name, meaning, "" if section is None else section[1], group


def _list_names(sections: Iterable[RunbookSection]) -> list[tuple[str, str]]:
    """Return each name with its group. A cause that is also a reason has one section, but is listed in both groups."""
    groups: dict[str, list[str]] = {}
    for section in sections:
        groups.setdefault(section.group, []).append(section.name)
    groups[CAUSES_HEADING] += [cause for cause in Cause if cause not in groups[CAUSES_HEADING]]
    return [(name, group) for group, names in groups.items() for name in names]


def _explain_settings(name: str, *, as_json: bool) -> None:
    """Print the setting, or all settings of the section, that has this name. Exit with 2 if there is none."""
    settings = find_settings(name)
    if not settings:
        say(f"notifier: there is no explanation of {name}; `notifier explain` lists all names", err=True)
        raise typer.Exit(2)
    if as_json:
        say_json([asdict(setting) for setting in settings])
        return
    for setting in settings:
        facts = [setting.type]
        if setting.default != "–":
            facts.append("required" if setting.default == "required" else f"default: {setting.default}")
        if setting.restart:
            facts.append("needs a restart" if setting.restart == "yes" else "to name another needs a restart")
        _print_markdown(f"**`{setting.name}`** ({'; '.join(facts)})\n\n{setting.meaning}\n")


def _print_markdown(markdown: str) -> None:
    """Print Markdown unrendered, but without the targets of its links."""
    say(_LINK.sub(r"\1", _adapt_to_terminal(markdown)))


def _adapt_to_terminal(text: str) -> str:
    """Return the text without ` -c FILE` in its commands if NOTIFIER_CONFIG names the configuration."""
    return text.replace(" -c FILE", "") if os.environ.get("NOTIFIER_CONFIG") else text


def _print_names(names: list[tuple[str, str]], *, as_json: bool) -> None:
    """Print the names below their groups. `names` has pairs of name and group, sorted by group."""
    if as_json:
        say_json([{"name": name, "group": group} for name, group in names])
        return
    last = None
    for name, group in names:
        if group != last:
            say(f"{group}:")
            last = group
        say(f"  {name}")
