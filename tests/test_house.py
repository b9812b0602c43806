"""One name, one thing: newcomers find a module or a class by its name alone."""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median

from tools.code_lines import measure_modules

HOUSE = Path(__file__).parent.parent / "notifier"
QUEUES = HOUSE / "queues"
MAX_LINES, MAX_LINES_OF_ONE_IDEA = 300, 400
MODULES_OF_ONE_IDEA = {  # at most five, each with the reason why it is longer than others
    "delivery/client_state.py": "one state, and all that happens to it",
    "delivery/fetches.py": "one kind of fetch, with all bounds by which it delays no other delivery",
    "delivery/scheduler.py": "one scheduler, with the states of its clients",
    "delivery/verdict.py": "one decision table, and all its rows",
}
MODULES = [path for path in HOUSE.rglob("*.py") if path.name not in ("__init__.py", "__main__.py")]


def ambiguous(named: Iterable[tuple[str, Path]]) -> dict[str, list[str]]:
    """Return the names with several modules, except one thing in the rooms of several queues."""
    places: dict[str, list[Path]] = defaultdict(list)
    for name, path in named:
        places[name].append(path)
    return {
        name: [str(path.relative_to(HOUSE)) for path in paths]
        for name, paths in places.items()
        if len(paths) > 1 and len({_queue(path) for path in paths} - {None}) < len(paths)
    }


def _queue(path: Path) -> str | None:
    """Return the queue in whose room the module is."""
    return path.relative_to(QUEUES).parts[0] if path.is_relative_to(QUEUES) else None


def test_no_two_modules_have_one_name() -> None:
    """Except for the same thing in the adapters of two queues."""
    assert ambiguous((path.stem, path) for path in MODULES) == {}


def test_modules_are_few_and_of_moderate_length() -> None:
    """At most 420 modules, with a median of at least 115 physical lines, and at most 300 each; five may have 400."""
    lengths = {str(Path(path).relative_to(HOUSE)): length for length, path in measure_modules(HOUSE)}
    assert (len(lengths) <= 420, median(lengths.values()) >= 115) == (True, True)
    longer = {path: length for path, length in lengths.items() if length > MAX_LINES}
    assert (set(longer), len(longer) <= 5) == (set(MODULES_OF_ONE_IDEA), True)
    assert [path for path, length in longer.items() if length > MAX_LINES_OF_ONE_IDEA] == []


def test_no_two_types_have_one_name() -> None:
    """Neither classes nor aliases, except for the same thing in the adapters of two queues. Private ones are exempt."""
    types = (
        (name, path) for path in MODULES for node in ast.parse(path.read_text()).body for name in _types_named_by(node)
    )
    assert ambiguous(types) == {}


def _types_named_by(node: ast.stmt) -> Iterator[str]:
    """Return the public class or alias of a type that the statement defines: `Clock = Callable[[], float]`."""
    match node:
        case (
            ast.ClassDef(name=name) | ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name))
        ):
            if name[:1].isupper() and not name.isupper():
                yield name


def test_each_command_has_a_module_of_its_name() -> None:
    """Whoever reads `notifier status` finds `status_command.py`, in the room of what it commands."""
    commands = ("\n    Examples:\n", "typer.Typer(")
    wrong = [
        path.name
        for path in MODULES
        if not path.stem.endswith("_command") and any(said in path.read_text() for said in commands)
    ]
    assert {*wrong} <= {"application.py", "help.py"}  # help.py runs a command that it was given


def test_tls_contexts_are_made_in_one_place() -> None:
    """There, what a peer can cause below the layer that counts bytes is limited, and key exchanges are chosen."""
    makers = {"CountedContext", "SSLContext", "create_default_context", "_create_unverified_context", "wrap_socket"}
    places = {
        str(path.relative_to(HOUSE))
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in makers
    }
    assert places == {"network/counted_tls.py"}
