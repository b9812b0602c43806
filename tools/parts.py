"""The parts of the tests that change rarely: which have changed since they last passed whole, and runs of them.

    python -m tools.parts                    # what there is, and how it stands
    python -m tools.parts changed            # run the changed parts, as CI does; writes nothing
    python -m tools.parts everything [NAME]  # run the whole form of all, or of one, and note the commit that passed
    python -m tools.parts elsewhere          # pytest's arguments that leave all parts out

tools/parts.toml has the table, tools/parts.json the commit at which each part passed whole, with its figures. A part
whose tests were left out, since something could not be had, has not passed.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TABLE, NOTES = ROOT / "tools/parts.toml", ROOT / "tools/parts.json"
ALONGSIDE = ["--numprocesses", "3", "--dist", "loadfile"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One row of the table."""

    name: str
    what: str
    tests: list[str]
    of: list[str]
    short: list[str] = field(default_factory=list)
    build: str = ""
    require: dict[str, str] = field(default_factory=dict)

    @property
    def files(self) -> list[str]:
        """Pathspecs of all that it rests on."""
        return [*self.tests, *self.of]

    @property
    def row(self) -> str:
        """Return a digest of the row itself: a changed row is another part."""
        return sha256(json.dumps([self.tests, self.of, self.build, self.require]).encode()).hexdigest()[:12]


def read_parts(table: Path = TABLE) -> list[Part]:
    """Every part, with what each of them rests on."""
    rows = tomllib.loads(table.read_text())
    common = rows.pop("every")["of"]
    return [Part(name=name, **row | {"of": [*row["of"], *common]}) for name, row in rows.items()]


def why_changed(part: Part, notes: dict[str, Any], root: Path = ROOT) -> str:
    """Say why it must run again. Empty if nothing of it has changed since it passed whole."""
    if (note := notes.get(part.name)) is None:
        return "it has not passed whole yet"
    if note["row"] != part.row:
        return "its row in the table has changed"
    commit = note["commit"]
    if _git(root, "cat-file", "-e", f"{commit}^{{commit}}").returncode:
        return f"commit {commit[:10]}, at which it passed, is not here"
    changed = _lines(root, "diff", "--name-only", commit, "--", *part.files)
    changed += _lines(root, "ls-files", "--others", "--exclude-standard", "--", *part.files)
    return f"{changed[0]} has changed{_and_more(changed)}" if changed else ""


def _and_more(files: Sequence[str]) -> str:
    return f", and {len(files) - 1} more" if len(files) > 1 else ""


def _git(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)  # noqa: S607


def _lines(root: Path, *words: str) -> list[str]:
    done = _git(root, *words)
    if done.returncode:
        sys.exit(f"git {words[0]}: {done.stderr.strip()}")
    return done.stdout.split("\n")[:-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How a part went."""

    code: int
    seconds: float
    passed: int
    left_out: int


def run(part: Part, *, whole: bool) -> Run:
    """Run it by pytest, as `make` does."""
    report = ROOT / f"build/parts/{part.name}.xml"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    paths = part.tests if whole else part.short or part.tests
    words = [sys.executable, "-m", "pytest", *paths, *ALONGSIDE, f"--junitxml={report}"]
    begun = time.monotonic()
    code = subprocess.run(words, cwd=ROOT, env=os.environ | part.require, check=False).returncode
    seconds = time.monotonic() - begun
    suite = ET.parse(report).getroot()[0].attrib if report.exists() else {}  # noqa: S314  pytest has just written it
    tests, failed, errors, skipped = (int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped"))
    return Run(code=code, seconds=seconds, passed=tests - failed - errors - skipped, left_out=skipped)


def _missing(part: Part) -> str:
    """Why what must be built for it is not there. Empty if it is, or if nothing must be."""
    if not part.build:
        return ""
    looked = subprocess.run(
        [sys.executable, "-m", part.build, "look"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return (looked.stdout + looked.stderr).strip() if looked.returncode else ""


def show(parts: Iterable[Part], notes: dict[str, Any]) -> int:
    """Print a line for each."""
    for part in parts:
        why = why_changed(part, notes)
        note = notes.get(part.name, {})
        told = why or f"passed whole at {note['commit'][:10]}: {note['passed']} tests in {note['seconds']} s"
        _say(f"{part.name:<18}{part.what}\n{'':<18}{told}")
    return 0


def run_changed(parts: Iterable[Part], notes: dict[str, Any]) -> int:
    """Run the changed parts. Return 1 if a part fails."""
    failed = []
    for part in parts:
        if not (why := why_changed(part, notes)):
            _say(f"━━━ {part.name}: nothing of it has changed since {notes[part.name]['commit'][:10]} passed")
        elif missing := _missing(part):
            _say(f"━━━ {part.name}: LEFT OUT, {part.what} were not tried: {missing}")
        else:
            _say(f"━━━ {part.name}: {why}")
            done = run(part, whole=False)
            _say(f"━━━ {part.name}: {'FAILED' if done.code else 'passed'} after {done.seconds:.0f} s")
            failed += [part.name] if done.code else []
    if failed:
        _say(f"Failed: {', '.join(failed)}. One alone: make test-everything PART={failed[0]}")
    return int(bool(failed))


def run_everything(parts: Iterable[Part], notes: dict[str, Any]) -> int:
    """Run the whole form of each, and note what passes. Returns 1 if one fails."""
    failed = []
    for part in parts:
        _say(f"━━━ {part.name}: {part.what}")
        if part.build and subprocess.run([sys.executable, "-m", part.build, "build"], cwd=ROOT, check=False).returncode:
            failed.append(part.name)
            continue
        before = _lines(ROOT, "status", "--porcelain", "--", *part.files)
        commit = _lines(ROOT, "rev-parse", "HEAD")[0]
        done = run(part, whole=True)
        if done.code:
            failed.append(part.name)
        elif done.left_out:
            _say(f"━━━ {part.name}: passed, and is not noted, since {done.left_out} tests were left out")
            failed.append(part.name)
        elif before:
            _say(
                f"━━━ {part.name}: passed, and is not noted, since {before[0][3:]} is not committed{_and_more(before)}"
            )
        else:
            figures = {"passed": done.passed, "seconds": round(done.seconds)}
            day = datetime.now(UTC).date().isoformat()
            notes[part.name] = {"commit": commit, "date": day, **figures, "row": part.row}
            NOTES.write_text(json.dumps(notes, indent=2, sort_keys=True) + "\n")
            _say(f"━━━ {part.name}: passed after {done.seconds:.0f} s, noted in {NOTES.relative_to(ROOT)}")
    if failed:
        _say(f"Failed: {', '.join(failed)}. One alone: make test-everything PART={failed[0]}")
    return int(bool(failed))


def elsewhere(parts: Iterable[Part]) -> list[str]:
    """Return what keeps pytest from collecting the tests of parts."""
    return [f"--ignore={path}" for part in parts for path in part.tests]


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  a command's answer


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tools.parts", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", nargs="?", choices=["show", "changed", "everything", "elsewhere"], default="show")
    parser.add_argument("name", nargs="?", help="of one part")
    given = parser.parse_args(arguments)
    parts = read_parts()
    names = [part.name for part in parts]
    if given.name is not None and given.name not in names:
        parser.error(f"there is no part {given.name!r}; there are {', '.join(names)}")
    parts = [part for part in parts if given.name in (None, part.name)]
    notes = json.loads(NOTES.read_text()) if NOTES.exists() else {}
    match given.what:
        case "changed":
            return run_changed(parts, notes)
        case "everything":
            return run_everything(parts, notes)
        case "elsewhere":
            _say(" ".join(elsewhere(parts)))
            return 0
        case _:
            return show(parts, notes)


if __name__ == "__main__":
    sys.exit(main())
