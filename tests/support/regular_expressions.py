"""Finds every regular expression of the source, and texts on which backtracking may take more than linear time.

An expression is superlinear if its automaton can be at two loops with one word (infinite degree of ambiguity; Weber and
Seidl 1991): one word `v` goes from loop p to p, from p to another loop q, and from q to q. Then the text `v v v … v x`,
after which nothing matches, is split between the two in as many ways as it is long. A search adds a loop of its own in
front, since it begins anew at each character. Whether the engine really tries all ways is seen by feeding it.
"""

import ast
import importlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from re import _compiler, _constants, _parser  # type: ignore[attr-defined]  # isort: skip

SOURCE = Path(__file__).parents[2] / "notifier"
WHOLE = frozenset({"match", "fullmatch"})  # these do not begin anew at each character
METHODS = frozenset({"compile", "search", "match", "fullmatch", "split", "findall", "finditer", "sub", "subn"})
UNKNOWN = ("search", "sub")  # of one without a name
SIZE = 65_536  # characters
LONG = 0.02  # seconds: of 64 KiB, what is linear takes 0.005 at most
COPIES = 3  # of what is repeated a bounded number of times: that alone costs a factor


class Found(NamedTuple):
    """An expression of the source, and by which methods it is used."""

    where: str
    pattern: re.Pattern[Any]
    methods: tuple[str, ...]

    def use(self, text: str) -> None:
        """Do with the text what the source does."""
        given = text.encode("latin-1", "replace") if isinstance(self.pattern.pattern, bytes) else text
        for method in self.methods:
            if method in ("sub", "subn"):
                self.pattern.sub(type(given)(), given)
            else:
                getattr(self.pattern, "findall" if method == "finditer" else method)(given)


class Others(NamedTuple):
    """What the source has beside expressions that Python compiles."""

    of_pydantic: dict[str, str]
    unreadable: list[str]


def expressions(root: Path = SOURCE) -> tuple[list[Found], Others]:
    """Every expression below `root`, by walking the syntax trees."""
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
    """A text that may take long: `before`, `again` as often as it fits, then `after`."""

    before: str
    again: str
    after: str = ""

    def of(self, size: int) -> str:
        """The text, of about this many characters."""
        return self.before + self.again * ((size - len(self.before) - len(self.after)) // len(self.again)) + self.after


def suspects(found: Found) -> Iterator[Worst]:
    """Texts on which the expression may take more than linear time."""
    automaton = Automaton(found.pattern, searched=bool(set(found.methods) - WHOLE))
    for before, again in automaton.ambiguous():
        for after in ("", *automaton.letters, again[0] + "\n"):
            yield Worst(before, again, after)


def superlinear(use: Callable[[str], object], worst: Worst) -> int | None:
    """The number of characters at which it shows that `use` takes more than linear time. None up to 64 KiB.

    That is when it takes long at all, and eight times as long as for a quarter of the text: linear would be four times,
    quadratic sixteen times. The text grows slowly, since what is exponential would never end.
    """
    length = 16
    while _cost(use, worst.of(length)) < LONG:
        if length == SIZE:
            return None
        length = min(SIZE, length * 5 // 4)
    whole, quarter = (min(_cost(use, worst.of(part)) for _ in range(3)) for part in (length, length // 4))
    return length if whole > 8 * quarter else None


def _cost(use: Callable[[str], object], text: str) -> float:
    """Seconds of the processor, no matter how busy the machine is."""
    begun = time.thread_time()
    use(text)
    return time.thread_time() - begun


class Automaton:
    """The positions of an expression at which it takes a character, and what may follow each."""

    def __init__(self, pattern: re.Pattern[Any], *, searched: bool) -> None:
        parsed = _parser.parse(
            pattern.pattern, pattern.flags & ~re.UNICODE if isinstance(pattern.pattern, bytes) else pattern.flags
        )
        self._state = parsed.state
        self._flags = pattern.flags
        self._free: list[list[int]] = []  # from each state, those that need no character
        self._atoms: list[tuple[int, int, Any]] = []  # from a state to another by a character
        begin = self._new()
        self._sequence(parsed.data, begin)
        if searched:
            self._atoms.append((begin, begin, (_constants.NOT_LITERAL, 0xE000)))

    @cached_property
    def letters(self) -> list[str]:
        """One character of each kind that the expression tells apart."""
        kinds: dict[tuple[bool, ...], str] = {}
        tests = [self._predicate(atom) for _, _, atom in self._atoms]
        for code in (*range(0x20, 0x7F), *range(0x20), *range(0x7F, 0x100), 0x17F, 0x212A, 0x4E2D):
            kinds.setdefault(tuple(test.fullmatch(chr(code)) is not None for test in tests), chr(code))
        return list(kinds.values())

    @cached_property
    def _takes(self) -> list[frozenset[str]]:
        tests = [self._predicate(atom) for _, _, atom in self._atoms]
        return [frozenset(letter for letter in self.letters if test.fullmatch(letter)) for test in tests]

    @cached_property
    def _follows(self) -> list[dict[int, int]]:
        """For each atom those that may come next, and in how many ways (2: several)."""
        return [self._next(target) for _, target, _ in self._atoms]

    def ambiguous(self) -> Iterator[tuple[str, str]]:
        """A word that leads to a loop, and one that may stay in it or go to another loop."""
        together = self._components()
        loops = [atom for atom in range(len(self._atoms)) if together[atom]]
        for first in loops:
            for second, ways in self._follows[first].items():
                if ways > 1 and second in together[first]:
                    yield self._way({*self._next(0)}, first), self._word(first, first, first, first) or ""
        for first, second in product(loops, loops):
            if first != second:
                word = self._word(first, first, second, second)
                if word:
                    yield self._way({*self._next(0)}, first), word

    def _word(self, stays: int, goes: int, is_there: int, to: int) -> str | None:
        """The word with which `stays` comes back to itself, `goes` to `to` and `is_there` back to itself."""
        begin, end = (stays, goes, is_there), (stays, to, is_there)
        words = {begin: ""}
        line = [begin]
        for at in line:
            for following in product(self._follows[at[0]], self._follows[at[1]], self._follows[at[2]]):
                letters = self._takes[following[0]] & self._takes[following[1]] & self._takes[following[2]]
                if letters and following == end:
                    return words[at] + min(letters)
                if letters and following not in words:
                    words[following] = words[at] + min(letters)
                    line.append(following)
        return None

    def _way(self, begin: set[int], to: int) -> str:
        words = {atom: min(self._takes[atom]) for atom in sorted(begin) if self._takes[atom]}
        line = list(words)
        for at in line:
            for following in self._follows[at]:
                if following not in words and self._takes[following]:
                    words[following] = words[at] + min(self._takes[following])
                    line.append(following)
        return words[to]

    def _components(self) -> list[set[int]]:
        """For each atom those from which it comes back to itself."""
        reached = []
        for atom in range(len(self._atoms)):
            line = list(self._follows[atom])
            for at in line:
                line += [each for each in self._follows[at] if each not in line]
            reached.append(set(line))
        return [{other for other in reached[atom] if atom in reached[other]} for atom in range(len(self._atoms))]

    def _next(self, state: int, seen: frozenset[int] = frozenset()) -> dict[int, int]:
        ways = {atom: 1 for atom, (begin, _, _) in enumerate(self._atoms) if begin == state}
        for other in self._free[state]:
            if other not in seen:
                for atom, count in self._next(other, seen | {state}).items():
                    ways[atom] = min(2, ways.get(atom, 0) + count)
        return ways

    def _predicate(self, atom: Any) -> re.Pattern[str]:
        made: re.Pattern[str] = _compiler.compile(_parser.SubPattern(self._state, [atom]), self._flags & ~re.DEBUG)
        return made

    def _new(self) -> int:
        self._free.append([])
        return len(self._free) - 1

    def _sequence(self, parts: Sequence[Any], begin: int) -> int:
        for operation, argument in parts:
            begin = self._part(operation, argument, begin)
        return begin

    def _part(self, operation: Any, argument: Any, begin: int) -> int:
        match operation:
            case _constants.LITERAL | _constants.NOT_LITERAL | _constants.ANY | _constants.IN:
                end = self._new()
                self._atoms.append((begin, end, (operation, argument)))
                return end
            case _constants.AT:
                return begin
            case _constants.BRANCH:
                end = self._new()
                for way in argument[1]:
                    self._free[self._sequence(way, self._after(begin))].append(end)
                return end
            case _constants.SUBPATTERN:
                return self._sequence(argument[3], begin)
            case _constants.ATOMIC_GROUP:
                return self._sequence(argument, begin)
            case _constants.ASSERT | _constants.ASSERT_NOT:
                self._sequence(argument[1], self._after(begin))  # it goes nowhere
                return begin
            case _constants.MAX_REPEAT | _constants.MIN_REPEAT | _constants.POSSESSIVE_REPEAT:
                return self._repeated(argument, begin)
            case _:
                raise NotImplementedError(f"{operation} (of a back-reference nobody can tell what it costs)")

    def _repeated(self, argument: tuple[int, int, Sequence[Any]], begin: int) -> int:
        least, most, part = argument
        for _ in range(min(least, COPIES)):
            begin = self._sequence(part, begin)
        end = self._new()
        self._free[begin].append(end)
        if most is _constants.MAXREPEAT:
            again = self._after(begin)
            self._free[self._sequence(part, again)] += [again, end]
            return end
        for _ in range(min(most - least, COPIES)):
            begin = self._sequence(part, self._after(begin))
            self._free[begin].append(end)
        return end

    def _after(self, state: int) -> int:
        new = self._new()
        self._free[state].append(new)
        return new
