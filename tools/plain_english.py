"""Counts wordings that readers stumble over, in comments, docstrings, messages and documents, and in declared names.

    python -m tools.plain_english [PATH ...]            counts by kind, and per 1,000 words of prose or of names
    python -m tools.plain_english --list KIND [PATH]    the lines of one kind (a part of its name is enough)
    git diff BASE | python -m tools.plain_english --diff    the added lines only
    python -m tools.plain_english --check               fail if a rate is above its goal, or 10 % above its record
    python -m tools.plain_english --record              record the rates of today

It finds candidates, not errors. A synonym that replaces a counted word without making the sentence plainer is worse
than the word. `tools/plain_english.json` has the recorded rates.

Declared names are split into words: `clientsToTell` and `clients_to_tell` have three. Python's are read from its syntax
tree; in other languages a name counts as declared where it follows a type or a keyword, or precedes `=`. A deprecated
alias (`@deprecated`, `[Obsolete]`) does not count: users rely on its name.
"""

import argparse
import ast
import io
import json
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[1]
DATA = Path(__file__).with_suffix(".json")
PACKAGES = tuple(
    f"publishers/{name}" for name in ("java-core", "keycloak", "spring", "oidc-provider", "duende", "python")
)
RECORDED = {"prose": ("notifier", "docs", "tests", *PACKAGES), "names": PACKAGES}
GOAL = 0.5  # per 1,000 words, of the packages

KINDS = {
    "software speaks or listens (tells, says, hears)": r"\b(?:tells?|told|says?|said|hears?|heard)\b",
    "clause instead of a noun (what waits, what became of it)": (
        r"\b[Ww]hat (?:waits?|waited|came|comes|becomes?|became|goes|went|stands?|stays?|lies|remains|was|were|they"
        r"|others?|no|nobody|somebody|has|have|had|may)\b"
    ),
    "possessive behind (of its own, of ours)": (
        r"\bof (?:its|their|his|our) own\b|\b(?:fault|error|file|queue|mistake)s? of ours\b|\bof theirs\b"
    ),
    "absence as a thing (is no X, nobody, in vain, away)": (
        r"(?<!here )\b(?:is|are|was|were|be) (?:no|away)\b(?! longer| more)|\bin vain\b|\bof nobody\b|\bof none\b"
    ),
    "one, those, whoever without a noun": (
        r"\b(?:one|ones|those|whoever) (?:that|who|which|whose|is|has|may|waits?|comes?)\b"
        r"|\b[Ww]ho (?:may|asks|is|was|acted|looks) (?:say|what|told|at)\b"
    ),
    "old or literary words, private metaphors": (
        r"\b(?:anew|mend(?:s|ed|ing)?|begun|lest|whence|hence|thereby|alike|but for|nought|put off|let go|at best"
        r"|for ever|lend(?:s|ing)?|lent|bears?|borne|tired|leash|traveller|relief|desk|crowd|ward|unheard|judgement"
        r"|left away|made of it|looks? after)\b"
    ),
}
ALLOWED_SPEAKERS = re.compile(
    r"(?:RFC[\s\d,.]*|specification|draft|standard|documentation|section [\d.]+)\s*$", re.IGNORECASE
)
NAMES = "names"
NAME_WORDS = re.compile(
    r"told|tells?|tellers?|says?|said|hears?|heard|slips?|keepers?|seldoms?|tally|tallies|partings?|endings?|fates?"
)
WORD = re.compile(r"[A-Za-z]{2,}")
NAME_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
COMPILED = {kind: re.compile(pattern) for kind, pattern in KINDS.items()}
OTHER = {".js", ".mjs", ".ts", ".html", ".yaml", ".yml", ".tpl", ".java", ".cs", ".sh"}
SKIPPED = {"node_modules", "__pycache__", ".git", "target", "bin", "obj", "vendor"}


def prose(path: Path, text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that people read as sentences: comments, strings, docstrings; Markdown outside code blocks."""
    if path.suffix == ".py":
        try:
            for token in tokenize.generate_tokens(io.StringIO(text).readline):
                if token.type in (tokenize.COMMENT, tokenize.STRING):
                    for offset, line in enumerate(token.string.splitlines()):
                        yield token.start[0] + offset, line
        except (tokenize.TokenError, SyntaxError, IndentationError):
            return
        return
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if path.suffix == ".md":
            if line.lstrip().startswith(("```", "~~~")):
                fenced = not fenced
            elif not fenced:
                yield number, line
        elif re.search(r"//|^\s*[*#/]|['\"`>]", line):
            yield number, line


def found(line: str) -> Iterator[tuple[str, str]]:
    """Yield kind and words of each candidate in a line."""
    for kind, pattern in COMPILED.items():
        for match in pattern.finditer(line):
            if match[0].startswith("sa") and ALLOWED_SPEAKERS.search(line[: match.start()]):
                continue
            yield kind, match[0]


_TYPE = r"[A-Za-z_][\w.]*(?:<[\w\s<>,.?\[\]]*>)?(?:\[\])*\??"
_NO_TYPE = (
    r"(?!(?:return|new|throws?|await|yield|case|else|in|is|as|of|typeof|delete|goto|not|and|or|when|export"
    r"|extends|implements|permits)\b)"
)
_DECLARING = r"(?:class|interface|record|enum|struct|namespace|delegate|function\*?|const|let|var|val)"
_DECLARED = (
    re.compile(rf"\b{_DECLARING}\s+([A-Za-z_$]\w*)"),
    re.compile(rf"(?<![\w.]){_NO_TYPE}{_TYPE}\s+([A-Za-z_]\w*)\s*(?=[=;,)({{:]|=>|$)", re.MULTILINE),  # TYPE NAME
    re.compile(r"^\s*(?:(?:async|static|get|set)\s+)*\*?#?([A-Za-z_$]\w*)\s*\([^()]*\)\s*\{", re.MULTILINE),
    re.compile(r"(?:\bthis\.|^\s*)#?([A-Za-z_$]\w*)\s*=(?![=>])", re.MULTILINE),
)
_JAVASCRIPT = (
    re.compile(r"^\s*([A-Za-z_$]\w*)\??\s*:", re.MULTILINE),  # a member
    re.compile(r"([A-Za-z_$]\w*)\s*=>"),
)
_LISTS = re.compile(
    r"\b(?:const|let|var)\s*([{\[][^=]*[}\]])\s*=|\bfunction\b[^(]*\(([^()]*)\)|\(([^()]*)\)\s*=>"
    r"|^\s*#?\w+\s*\(([^()]*)\)\s*\{",
    re.MULTILINE,
)
_LISTED = re.compile(r"(?<![.:\w])([A-Za-z_$]\w*)(?=\s*(?:[,=}\])]|$))")
_NO_CODE = re.compile(
    r"//[^\n]*|/\*.*?\*/|\"\"\".*?\"\"\"|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`", re.DOTALL
)
_KEYWORDS = frozenset(
    ["if", "for", "while", "switch", "catch", "return", "throw", "using", "lock", "foreach", "when", "constructor"]
)
_DEPRECATED = re.compile(r"@deprecated|\[Obsolete", re.IGNORECASE)


def declared(path: Path, text: str) -> Iterator[tuple[int, str]]:
    """Yield line and name of each declaration in a source file, each name once; the file's own name first."""
    if path.suffix == ".py":
        found = _declared_in_python(text)
    elif path.suffix in {".js", ".mjs", ".ts", ".java", ".cs"}:
        found = _declared_elsewhere(path, text)
    else:
        return
    seen = set[str]()
    for line, name in chain([(1, path.stem)], found):
        if name not in seen and name not in _KEYWORDS:
            seen.add(name)
            yield line, name


def _declared_in_python(text: str) -> Iterator[tuple[int, str]]:
    module = ast.parse(text)
    aliases = {
        target
        for node in ast.walk(module)
        if isinstance(node, ast.Assign) and "deprecated" in ast.unparse(node.value)
        for target in node.targets
    }
    for node in ast.walk(module):
        if node in aliases:
            continue
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if not any("deprecated" in ast.unparse(each) for each in node.decorator_list):
                    yield node.lineno, name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.alias(asname=str(name)):
                yield 1, name


def _declared_elsewhere(path: Path, text: str) -> Iterator[tuple[int, str]]:
    code = _NO_CODE.sub(lambda found: "\n" * found[0].count("\n"), text)
    lines = text.splitlines()
    is_javascript = path.suffix in {".js", ".mjs", ".ts"}
    found = [(each.start(1), each[1]) for pattern in _DECLARED for each in pattern.finditer(code)]
    if is_javascript:
        found += [(each.start(1), each[1]) for pattern in _JAVASCRIPT for each in pattern.finditer(code)]
        for each in _LISTS.finditer(code):
            names = _LISTED.findall(next(filter(None, each.groups()), ""))
            found += [(each.start(), name) for name in names]
    for at, name in found:
        line = code.count("\n", 0, at)
        if not any(_DEPRECATED.search(each) for each in lines[max(line - 1, 0) : line + 1]):
            yield line + 1, name


def count(places: Iterable[Path], listed: str | None = None, *, of: str = "prose") -> tuple[Counter[str], int]:
    """Return the count of each kind, and the number of words; `of`: `prose` or `names`.

    Print the lines of the kinds that contain `listed`.
    """
    counts: Counter[str] = Counter()
    words, seen = 0, set[str]()
    for file in chain.from_iterable(sorted(place.rglob("*")) if place.is_dir() else [place] for place in places):
        if file.suffix not in {".py", ".md"} | OTHER or SKIPPED & set(file.parts) or not file.is_file():
            continue
        text = file.read_text(errors="replace")
        if text in seen:
            continue  # a copy counts once
        seen.add(text)
        for number, line in prose(file, text) if of == "prose" else declared(file, text):
            words += len(WORD.findall(line)) if of == "prose" else len(NAME_PART.findall(line))
            for kind, _ in found(line) if of == "prose" else odd_parts(line):
                counts[kind] += 1
                if listed and listed in kind:
                    sys.stdout.write(f"{file}:{number}: {line.strip()[:150]}\n")
    return counts, words


def odd_parts(name: str) -> Iterator[tuple[str, str]]:
    """Yield kind and word of each odd part of a declared name."""
    for part in NAME_PART.findall(name):
        if NAME_WORDS.fullmatch(part.lower()):
            yield NAMES, part


def rates() -> dict[str, dict[str, float]]:
    """Return the count per 1,000 words of prose and of names, of each folder whose rate is recorded."""
    return {of: {folder: _rate(*count([ROOT / folder], of=of)) for folder in RECORDED[of]} for of in RECORDED}


def _rate(counts: Counter[str], words: int) -> float:
    return round(1000 * counts.total() / max(words, 1), 2)


def check() -> None:
    """Exit with a message if a folder's rate is above its goal, or without a goal more than 10 % above the record."""
    record = json.loads(DATA.read_text())
    risen = []
    for of, now in rates().items():
        for folder, rate in now.items():
            limit = GOAL if folder in PACKAGES else 1.1 * record[of][folder]
            if rate > limit:
                risen.append(f"{folder}: {rate} per 1,000 words of {of}, at most {limit:.2f}")
    if risen:
        sys.exit("Wordings that readers stumble over (CONTRIBUTING.md, Language) have become more frequent.\n"
                 + "\n".join(risen) + "\n`python -m tools.plain_english --list KIND FOLDER` shows them.")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, default=[ROOT / folder for folder in RECORDED["prose"]])
    parser.add_argument("--list", metavar="KIND")
    for action in ("--diff", "--check", "--record"):
        parser.add_argument(action, action="store_true")
    options = parser.parse_args()
    if options.check:
        check()
    elif options.record:
        DATA.write_text(json.dumps(rates(), indent=1) + "\n")
    elif options.diff:
        for line in sys.stdin:
            if line.startswith("+") and not line.startswith("+++") and (first := next(found(line), None)):
                sys.stdout.write(f"{first[1]!r:<22} {line[1:].strip()[:130]}\n")
    else:
        for of in RECORDED:
            counts, words = count(options.paths, options.list, of=of)
            for kind, number in [*counts.most_common(), (f"all {of}", counts.total())] if not options.list else []:
                sys.stdout.write(f"{number:6} {1000 * number / max(words, 1):6.1f}/1000  {kind}\n")


if __name__ == "__main__":
    main()
