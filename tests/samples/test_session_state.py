"""The samples that compute `session_state` agree with their vectors, in Python, Java and Node. C# is only parsed."""

import importlib.util
import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.samples.languages import EXAMPLES
from tests.support.apt_programs import program
from tests.support.npm_modules import NODE

VECTORS = json.loads((EXAMPLES / "session_state.json").read_text())
GIVEN = ("client_id", "redirect_uri", "browser_state", "salt")
NODE_LINES = """
import {{ readFileSync }} from 'node:fs'
import {{ sessionState }} from '{module}'
for (const line of readFileSync(0, 'utf8').trimEnd().split('\\n')) console.log(sessionState(...JSON.parse(line)))
"""
JAVA_LINES = """
public final class Lines {
    public static void main(String[] given) {
        for (int at = 0; at < given.length; at += 4)
            System.out.println(SessionState.create(given[at], given[at + 1], given[at + 2], given[at + 3]));
        System.out.println(SessionState.create("a", "https://b", "c").length());
    }
}
"""


def python(folder: Path, given: Sequence[Sequence[str]]) -> list[str]:
    spec = importlib.util.spec_from_file_location("session_state_sample", EXAMPLES / "session_state.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [module.session_state(*each) for each in given]


def node(folder: Path, given: Sequence[Sequence[str]]) -> list[str]:
    script = folder / "lines.mjs"
    script.write_text(NODE_LINES.format(module=(EXAMPLES / "session_state.mjs").as_uri()))
    return _lines([str(NODE), str(script)], "\n".join(map(json.dumps, given)))


def java(folder: Path, given: Sequence[Sequence[str]]) -> list[str]:
    (folder / "Lines.java").write_text(JAVA_LINES)
    javac = program("javac", "default-jdk-headless")
    _lines(
        [javac, "-encoding", "UTF-8", "-d", str(folder), str(EXAMPLES / "SessionState.java"), f"{folder}/Lines.java"]
    )
    run = ["env", "LC_ALL=C.UTF-8", program("java", "default-jdk-headless"), "-Dfile.encoding=UTF-8"]
    run += ["-Dsun.jnu.encoding=UTF-8", "-cp", str(folder), "Lines"]
    *made, length = _lines([*run, *(text for each in given for text in each)])
    assert length == str(64 + 1 + 32), "the salt that it makes has 16 bytes"
    return made


@pytest.mark.parametrize("language", [python, node, java])
def test_samples_agree_with_the_vectors(
    language: Callable[[Path, Sequence[Sequence[str]]], list[str]], tmp_path: Path
) -> None:
    """The origin as browsers write it: no default port, lower case, IPv6 in brackets, other letters as xn--."""
    assert language(tmp_path, [[vector[name] for name in GIVEN] for vector in VECTORS]) == [
        vector["session_state"] for vector in VECTORS
    ]


def _lines(command: list[str], given: str = "") -> list[str]:
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
