"""Finds all regular expressions of the source, and texts on which backtracking is slower than linear.

Each is applied to a match with one piece repeated, followed by text that does not match.
"""

import ast
import importlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from re import _compiler, _constants, _parser  # type: ignore[attr-defined]  # isort: skip

SOURCE = Path(__file__).parents[2] / "notifier"
WHOLE = frozenset({"match", "fullmatch"})  # these do not start again at each character
METHODS = frozenset({"compile", "search", "match", "fullmatch", "split", "findall", "finditer", "sub", "subn"})
UNKNOWN = ("search", "sub")  # of an expression without a name
SIZE = 65_536  # characters
LONG = 0.02  # seconds: most linear ones take at most 0.005 for 64 KiB
RATIO = 8  # of the times for a text and for its quarter: 4 if linear, 16 if quadratic
PIECE = 6  # characters, at most, of the repeated piece
LENGTHS = (16, 20, 25, 31, 40, 64, 256, 1024, 4096)  # grows slowly, because an exponential one would never end
SUSPICIOUS = 0.001  # seconds: most linear ones take a tenth of it for 4 KiB


class Found(NamedTuple):
    """An expression of the source, and the methods that use it."""

    where: str
    pattern: re.Pattern[Any]
    methods: tuple[str, ...]

    def use(self, text: str) -> None:
        """Apply the expression to the text as the source does."""
        given = text.encode("latin-1", "replace") if isinstance(self.pattern.pattern, bytes) else text
        for method in self.methods:
            if method in ("sub", "subn"):
                self.pattern.sub(type(given)(), given)
            else:
                getattr(self.pattern, "findall" if method == "finditer" else method)(given)


class Others(NamedTuple):
    """Expressions that Python does not compile."""

    of_pydantic: dict[str, str]
    unreadable: list[str]


def expressions(root: Path = SOURCE) -> tuple[list[Found], Others]:
    """Return every expression below `root`, found in the syntax trees."""
    found: list[Found] = []
    others = Others({}, [])
    for path in sorted(root.rglob("*.py")):
        text = path.read_text()
        if not re.search(r"\bre\.|\bpattern=", text):
            continue
        tree = ast.parse(text)
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        if any(_method(call) or _patterns(call) for call in calls):
            _of_module(path, root, tree, found, others)
    return found, others


def _of_module(path: Path, root: Path, tree: ast.Module, found: list[Found], others: Others) -> None:
    place = path.relative_to(root.parent)
    module = importlib.import_module(".".join(place.with_suffix("").parts))
    names = {
        id(node.value): node.targets[0].id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        for written in _patterns(call):
            others.of_pydantic[f"{place}:{call.lineno}"] = str(_value(written, module))
        method = _method(call)
        if method is None or _escaped(call.args[0]):
            continue
        try:
            text = _value(call.args[0], module)
            pattern = re.compile(text, _flags(call, method, module))
        except (NameError, TypeError):
            others.unreadable.append(f"{place}:{call.lineno}")
            continue
        name = names.get(id(call)) if method == "compile" else None
        methods = _uses(tree, name) if name else (method,) if method != "compile" else UNKNOWN
        found.append(Found(f"{path.relative_to(root)}: {name or text}", pattern, methods or UNKNOWN))


def _method(call: ast.Call) -> str | None:
    of = call.func
    if isinstance(of, ast.Attribute) and isinstance(of.value, ast.Name) and of.value.id == "re" and of.attr in METHODS:
        return of.attr
    return None


def _patterns(call: ast.Call) -> list[ast.expr]:
    return [word.value for word in call.keywords if word.arg == "pattern"]


def _escaped(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "re.escape"


def _value(node: ast.expr, module: ModuleType) -> Any:
    return eval(compile(ast.Expression(node), "", "eval"), vars(module))


def _flags(call: ast.Call, method: str, module: ModuleType) -> int:
    named = [word.value for word in call.keywords if word.arg == "flags"]
    place = {"compile": 1, "sub": 4, "subn": 4, "split": 3}.get(method, 2)
    return int(_value(node, module)) if (node := next(iter([*named, *call.args[place:]]), None)) is not None else 0


def _uses(tree: ast.Module, name: str | None) -> tuple[str, ...]:
    attributes = (
        node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    )
    return tuple(sorted({node.attr for node in attributes if ast.unparse(node.value) == name and node.attr in METHODS}))


@dataclass(frozen=True)
class Worst:
    """A text that may be slow: `before`, `again` repeated, then `after`."""

    before: str
    again: str
    after: str = ""

    def of(self, size: int) -> str:
        """Return the text with about this many characters."""
        return self.before + self.again * ((size - len(self.before) - len(self.after)) // len(self.again)) + self.after


def suspects(found: Found) -> Iterator[Worst]:
    """Return texts that may be slow: a match up to a piece that is repeated."""
    for sample in samples(found.pattern):
        for start in range(len(sample)):
            for end in range(start + 1, min(start + PIECE, len(sample)) + 1):
                for after in ("", "\n", "x", "\0"):
                    worst = Worst(sample[:start], sample[start:end], after)
                    if any(_grows(found.use, worst, length, SUSPICIOUS) for length in LENGTHS):
                        yield worst


def samples(pattern: re.Pattern[Any]) -> list[str]:
    """Return texts that match: one for each path of each branch."""
    text = pattern.pattern
    parsed = _parser.parse(text, pattern.flags & ~re.UNICODE if isinstance(text, bytes) else pattern.flags)

    def takes(part: Any) -> str:
        made = _compiler.compile(_parser.SubPattern(parsed.state, [part]), pattern.flags & ~re.DEBUG)
        dead_letters = map(chr, (*b"ax0- ", *range(1, 0x100)))
        return next(
            each for each in dead_letters if made.fullmatch(each if isinstance(text, str) else each.encode("latin-1"))
        )

    def of(parts: Any) -> list[str]:
        made = [""]
        for part in parts:
            ways = of_part(*part)
            made = [made[nth % len(made)] + ways[nth % len(ways)] for nth in range(max(len(made), len(ways)))]
        return made

    def of_part(operation: Any, argument: Any) -> list[str]:
        match operation:
            case _constants.LITERAL:
                return [chr(argument)]
            case _constants.NOT_LITERAL | _constants.ANY | _constants.IN:
                return [takes((operation, argument))]
            case _constants.AT | _constants.ASSERT | _constants.ASSERT_NOT:
                return [""]
            case _constants.BRANCH:
                return [sample for way in argument[1] for sample in of(way)]
            case _constants.SUBPATTERN:
                return of(argument[3])
            case _constants.ATOMIC_GROUP:
                return of(argument)
            case _constants.MAX_REPEAT | _constants.MIN_REPEAT | _constants.POSSESSIVE_REPEAT:
                return [sample * max(1, argument[0]) for sample in of(argument[2])]
            case _:
                raise NotImplementedError(f"{operation} (of a back-reference nobody can tell what it costs)")

    return of(parsed.data)


def superlinear(use: Callable[[str], object], worst: Worst) -> int | None:
    """Return the length from which `use` is slower than linear; None if linear up to 64 KiB.

    The text grows slowly, because an exponential expression would never end.
    """
    length = 16
    while not _grows(use, worst, length, LONG, repetitions=3):
        if length == SIZE:
            return None
        length = min(SIZE, length * 5 // 4)
    return length


def _grows(use: Callable[[str], object], worst: Worst, length: int, seconds: float, *, repetitions: int = 1) -> bool:
    """Return whether `use` takes longer than `seconds`, and RATIO times as long as for a quarter of the text.

    An interruption counts as CPU time on some machines: therefore the least of several repetitions counts.
    """
    text, quarter = worst.of(length), worst.of(length // 4)
    if (cost := _cost(use, text)) <= seconds:
        return False
    cost = min([cost, *(_cost(use, text) for _ in range(repetitions - 1))])
    return cost > max(seconds, RATIO * min(_cost(use, quarter) for _ in range(repetitions)))


def _cost(use: Callable[[str], object], text: str) -> float:
    """Return the CPU seconds, independent of the machine's load."""
    begun = time.thread_time()
    use(text)
    return time.thread_time() - begun
