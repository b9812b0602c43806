"""Counts wordings that readers stumble over, in comments, docstrings, messages and documents.

    python -m tools.plain_english [PATH ...]            counts by kind, and per 1,000 words of prose
    python -m tools.plain_english --list KIND [PATH]    the lines of one kind (a part of its name is enough)
    git diff BASE | python -m tools.plain_english --diff    the added lines only
    python -m tools.plain_english --check               fail if a recorded rate has risen by more than 10 %
    python -m tools.plain_english --record              record the rates of today

It finds candidates, not errors. A synonym that replaces a counted word without making the sentence plainer is worse
than the word. `tools/plain_english.json` has the recorded rates.
"""

import argparse
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
RECORDED = ("notifier", "docs", "tests")

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
WORD = re.compile(r"[A-Za-z]{2,}")
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


def count(places: Iterable[Path], listed: str | None = None) -> tuple[Counter[str], int]:
    """Return the count of each kind, and the number of words. Print the lines of the kinds that contain `listed`."""
    counts: Counter[str] = Counter()
    words, seen = 0, set[str]()
    for file in chain.from_iterable(sorted(place.rglob("*")) if place.is_dir() else [place] for place in places):
        if file.suffix not in {".py", ".md"} | OTHER or SKIPPED & set(file.parts) or not file.is_file():
            continue
        text = file.read_text(errors="replace")
        if text in seen:
            continue  # a copy counts once
        seen.add(text)
        for number, line in prose(file, text):
            words += len(WORD.findall(line))
            for kind, _ in found(line):
                counts[kind] += 1
                if listed and listed in kind:
                    sys.stdout.write(f"{file}:{number}: {line.strip()[:150]}\n")
    return counts, words


def rates() -> dict[str, float]:
    """Return the count per 1,000 words of each folder whose rate is recorded."""
    counted = {folder: count([ROOT / folder]) for folder in RECORDED}
    return {folder: round(1000 * counts.total() / words, 2) for folder, (counts, words) in counted.items()}


def check() -> None:
    """Exit with a message if a folder's rate is more than 10 % above the record."""
    record = json.loads(DATA.read_text())
    risen = [f"{folder}: {now} per 1,000 words, recorded {record[folder]}"
             for folder, now in rates().items() if now > 1.1 * record[folder]]  # fmt: skip
    if risen:
        sys.exit("Wordings that readers stumble over (CONTRIBUTING.md, Language) have become more frequent.\n"
                 + "\n".join(risen) + "\n`python -m tools.plain_english --list KIND FOLDER` shows them.")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, default=[ROOT / folder for folder in RECORDED])
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
        counts, words = count(options.paths, options.list)
        for kind, number in [*counts.most_common(), ("all", counts.total())] if not options.list else []:
            sys.stdout.write(f"{number:6} {1000 * number / max(words, 1):6.1f}/1000  {kind}\n")


if __name__ == "__main__":
    main()
