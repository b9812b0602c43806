"""The command line shows examples, starts fast, and never ends with a traceback."""

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from notifier import __version__
from notifier.cli.application import COMMANDS as LISTED
from notifier.cli.application import REMOVED_OPTIONS, application
from notifier.operators.terminal.help import LazyCommand
from tests.cli.in_process import notifier
from tests.system.command import environment

OF_WORKERS = {"aio_pika", "aiohttp", "uvloop", "yaml"}
HEAVY = {*OF_WORKERS, "cryptography", "jwt", "markdown_it", "pydantic", "pygments", "rich", "sqlite3", "structlog"}


def commands(group: TyperGroup, context: typer.Context) -> Iterator[tuple[Any, typer.Context]]:
    """Return every command and group."""
    for name, named in group.commands.items():
        each = named.load() if isinstance(named, LazyCommand) else named
        below = typer.Context(each, parent=context, info_name=name)
        yield each, below
        if isinstance(each, TyperGroup):
            yield from commands(each, below)


def every_command() -> list[tuple[Any, typer.Context]]:
    """Return every command of the application."""
    root = application()
    return list(commands(root, typer.Context(root, info_name="notifier")))


def test_every_help_gives_examples(tmp_path: Path) -> None:
    """On stdout, in 80 columns; an example can be copied as a line."""
    for words in ("", *(each.command_path.removeprefix("notifier ") for _, each in every_command())):
        done = notifier(*words.split(), "--help", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), words
        text, _, examples = done.stdout.partition("\nExamples:\n")
        assert f"notifier {words}".strip() in examples, words
        assert max(map(len, text.splitlines())) <= 80, words
        assert all(line.startswith("  ") for line in examples.splitlines()), words
        assert not [mark for mark in ("\x1b", "`", "](", "[/", "[bold", "bool", "…]") if mark in done.stdout], words


def test_every_example_of_the_help_can_be_typed() -> None:
    """Each command exists, and accepts the options and arguments of the example."""
    root = application()
    every = every_command()
    found = {context.command_path: (each, context) for each, context in every if not isinstance(each, TyperGroup)}
    shown = [root.epilog or "", *(leaf.epilog or "" for leaf, _ in found.values())]
    lines = [line for text in shown for line in text.splitlines() if not line.startswith("#")]
    typed = 0
    for words in (words for line in lines for words in commands_of(line)):
        name = next(name for name in (" ".join(words[:3]), " ".join(words[:2])) if name in found)
        leaf, context = found[name]
        leaf.make_parser(context).parse_args(words[len(name.split()) :])  # raises UsageError
        typed += 1
    assert typed >= 2 * len(found)


def commands_of(line: str) -> Iterator[list[str]]:
    """Return the commands of notifier in a shell line: between pipes, after variables."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in (*lexer, "|"):
        if set(word) <= set("|&;<>"):
            if "notifier" in words:
                yield words[words.index("notifier") :]
            words = []
        else:
            words.append(word)


def test_help_starts_with_the_line_of_the_list() -> None:
    """The list of all commands has the first line of each."""
    first = {named.name: named.load().help.split("\n\n")[0] for named in LISTED}
    assert first == {named.name: named.short_help for named in LISTED}


@pytest.mark.parametrize(
    ("words", "own", "heavy"),
    [("--help", set(), HEAVY), ("explain --help", {"notifier.operators.doctor.explain_command"}, OF_WORKERS)],
)
def test_a_command_imports_no_other(words: str, own: set[str], heavy: set[str], tmp_path: Path) -> None:
    """The help of all imports none, nor a library that only a worker or a table needs."""
    code = "import sys\nfrom notifier.cli import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    run = [sys.executable, "-c", code, *words.split()]
    done = subprocess.run(run, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=30, check=True)
    assert not heavy & {*done.stderr.split()}
    imported = {word for word in done.stderr.split() if word.endswith("_command")}
    assert imported == own


def test_version_option(tmp_path: Path) -> None:
    """By `--version`."""
    assert notifier("--version", cwd=tmp_path).stdout == f"notifier {__version__}\n"


def test_no_arguments_print_the_help(tmp_path: Path) -> None:
    """It is a usage error, though: exit 2."""
    for group in ((), ("keys",), ("topology",)):
        done = notifier(*group, cwd=tmp_path)
        assert done.returncode == 2
        assert "Usage: notifier" in done.stdout + done.stderr


@pytest.mark.parametrize(
    "words", ["--bogus", "check --bogus", "bogus", "schema outcomes", "demo --events 0", "demo --no-open"]
)
def test_usage_error_exits_2(words: str, tmp_path: Path) -> None:
    """With a message on stderr."""
    done = notifier(*words.split(), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr
    assert not done.stdout


@pytest.mark.parametrize("gone", REMOVED_OPTIONS)
def test_removed_command_is_refused_with_its_successor(gone: str, tmp_path: Path) -> None:
    """Also with `--help`; and no list of commands contains it."""
    for more in ((), ("--help",)):
        done = notifier(*gone.split(), *more, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"notifier: `notifier {gone}` {REMOVED_OPTIONS[gone]}\n"
    assert not {each.name for each in LISTED} & set(REMOVED_OPTIONS)


@pytest.mark.parametrize(
    "words",
    [
        "dead-letters discard --yes --client-id",
        "waiting cancel --yes --event-id",
        "waiting cancel --yes",
        "dead-letters show",
    ],
)
def test_an_empty_option_is_refused(words: str, tmp_path: Path) -> None:
    """An unset variable of a script must not select dead letters without a client."""
    done = notifier(*words.split(), "", cwd=tmp_path, settings={"NOTIFIER_QUEUE__URL": "sqlite:q.db"})
    assert (done.returncode, done.stdout) == (2, "")
    assert "must not be empty" in done.stderr


def test_system_error_is_one_line(tmp_path: Path) -> None:
    """The stack trace requires a log level."""
    words = ("keys", "generate", "--out", tmp_path / "missing" / "key.pem")
    done = notifier(*words, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"notifier: No such file or directory: {tmp_path}/missing/key.pem\n"
    logged = notifier(*words, cwd=tmp_path, settings={"NOTIFIER_LOG__LEVEL": "error"})
    assert '"event":"crashed"' in logged.stderr
