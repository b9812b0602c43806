"""`notifier explain` knows each word that a screen shows: of `status`, of the tables of commands, of the console."""

import ast
import re
from pathlib import Path
from typing import get_args

from notifier.features.console.recent import SERIES, EntryKind
from notifier.model.message import DEAD, PARKED, Lane
from notifier.model.outcome import Cause, DeadReason, Reason
from notifier.model.trouble import TroubleKind
from notifier.operators.deliveries.dead_letters_access import DEAD_LETTER_TABLE
from notifier.operators.deliveries.readmission import KeepReason
from notifier.operators.deliveries.waiting_command import WAITING_TABLE
from notifier.operators.doctor.explain_command import load_sections
from notifier.operators.status.service_status import rates_of, status_of
from notifier.operators.status.status_document import CIRCUIT_STATES
from notifier.operators.status.status_page import STATE_WORDS
from tests.cli.in_process import notifier

ROOT = Path(__file__).parents[3]

PLAIN = {  # words of the console that have here no other meaning than in any text
    "action", "algorithms", "clients", "created", "details", "event", "find in the log", "from", "issuer", "job", "key",
    "kind", "last read", "member", "problem", "published", "published since", "result", "source", "started", "state",
    "text", "took", "use", "value", "when", "who", "worker",
}  # fmt: skip


def heads_of_tables() -> set[str]:
    """Return the heads of the columns of `status`, `waiting list`, `dead-letters list` and the console's tables."""
    console = "\n".join(path.read_text() for path in (ROOT / "notifier/features/console").glob("*.js"))
    heads = {*re.findall(r'head: "([^"]+)"', console), *WAITING_TABLE.heads, *DEAD_LETTER_TABLE.heads}
    page = (ROOT / "notifier/operators/status/status_page.py").read_text()
    for call in ast.walk(ast.parse(page)):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "Grid":
            heads |= {str(ast.literal_eval(argument)) for argument in call.args}
    return {head.rstrip(":").lower() for head in heads} - {""}


def vocabulary() -> set[str]:
    """Return the words of reasons, states and counts that `status`, tables, the console and JSON show."""
    console = (ROOT / "notifier/features/console/words.js").read_text()
    states = re.findall(r'^  (\w+): \["([\w ]+)"', console, re.MULTILINE)
    assert len(states) > 6
    return {
        *Reason, *DeadReason, *Cause, *TroubleKind, *KeepReason, *get_args(EntryKind), *SERIES, *CIRCUIT_STATES,
        *STATE_WORDS, *STATE_WORDS.values(), *(word for state in states for word in state),
        *rates_of(status_of({}, [], now=0.0)),
        *Lane, DEAD, PARKED, "delayed", "draining", "not ready", "not consuming", "in flight", "no sid", "late",
        "skipped", "answered", "left_out", "missing", "different", *heads_of_tables(),
    } - PLAIN - {"queue"}  # fmt: skip  # a section of the settings


def test_each_word_of_the_screen_is_explained(tmp_path: Path) -> None:
    """As it is shown, in one argument or several."""
    words = vocabulary()
    assert words >= {"waits for", "last success", "put_off", "still_malformed", "probing"}
    assert heads_of_tables() >= PLAIN
    known = {section.lower() for section in load_sections()}
    assert {word for word in words if re.sub("[ -]", "_", word) not in known} == set()
    for written in (["set", "aside"], ["set aside"], ["Set-Aside"], ["set_aside"]):
        done = notifier("explain", *written, cwd=tmp_path)
        assert (done.returncode, done.stdout.startswith("set_aside\n")) == (0, True)
    unknown = notifier("explain", "no", "such", "word", cwd=tmp_path)
    assert (unknown.returncode, unknown.stdout, "explanation of no such word" in unknown.stderr) == (2, "", True)
