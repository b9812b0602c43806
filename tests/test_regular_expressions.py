"""Each regular expression of the source takes linear time, for any input."""

import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from aiormq.exceptions import ChannelPreconditionFailed

from notifier.features.registries.page_requests import find_next_url
from notifier.model.errors import SourceFault
from notifier.model.redaction import redact, redact_secret
from notifier.queues.rabbitmq.topology import _explain_difference
from notifier.tokens.key_files import _find_blocks
from tests.support.regular_expressions import SOURCE, Found, Others, Worst, expressions, superlinear, suspects

BY_HAND = {  # no generated sample satisfies a look-around
    "queues/rabbitmq/delays.py: _NO_HOPS": Worst("", '"schedule":{"due":1'),
    "queues/rabbitmq/wire/decoding.py: _SOURCE_QUEUE": Worst("", ".source.a", "."),
    "model/egress.py: _NAME": Worst("", "a.", "-"),
    r"network/http/issuer_document.py: (?i)(?<![\w-])max-age=\"?([0-9]{1,10})": Worst("", ' max-age="'),
    r"model/redaction.py: -----BEGIN [A-Z ]*PRIVATE KEY-----[^\"]*?(?:-----END [A-Z ]*-----|(?=\")|\Z)": Worst(
        "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----BEGIN "
    ),
    "model/documents/cloudevents.py: _FORM": Worst("", "00-"),
    "network/databases/database_url.py: _FILE": Worst("sqlite:///", "a", "\n"),
}
"""The worst that somebody may write for expressions with look-arounds."""


@pytest.fixture(scope="module")
def listed() -> tuple[list[Found], Others]:
    """All expressions of the source."""
    return expressions()


def _next(links: str) -> str | None:
    return find_next_url(links, "https://id.example.com/clients")


def _hide_user(text: str) -> str:
    return redact_secret(text, "jürgen@example.com", "[sub]")


def _explain_refusal(text: str) -> str:
    return _explain_difference("queue", ChannelPreconditionFailed(text))


def test_the_worst_texts_cost_linear_time(listed: tuple[list[Found], Others]) -> None:
    """64 KiB of each; and every sample belongs to an existing expression."""
    uses = {found.where: found.use for found in listed[0]}
    assert {where for where, worst in BY_HAND.items() if superlinear(uses[where], worst)} == set()


@pytest.mark.full
@pytest.mark.timeout(600)
def test_the_checker_finds_no_text_that_costs_more(listed: tuple[list[Found], Others]) -> None:
    """Nor similar texts. If it fails, use methods of str, or limit repetitions."""
    slow = ((found.where, worst) for found in listed[0] for worst in suspects(found) if superlinear(found.use, worst))
    assert next(slow, None) is None


@pytest.mark.parametrize(
    ("pattern", "method"),
    [
        (r'<([^>]*)>((?:\s*;\s*[^;,="\s]+(?:\s*=\s*(?:"[^"]*"|[^;,"]*))?)*)', "finditer"),
        (r"(://[^/\s:@\"]*):[^\s\"]*@", "sub"),
        (r"GRANT (.+?) ON (.+?) TO ", "match"),
        (r" +$", "search"),
        (r"(a|a)*b", "fullmatch"),
        (r"(a*)*b", "match"),
        (r"(?:[a-z]+-?)+:", "fullmatch"),
        (r"\s*,?\s*$", "search"),
    ],
)
def test_the_checker_finds_slow_expressions(pattern: str, method: str) -> None:
    """Former expressions of the source, and classics: quadratic and exponential."""
    found = Found("here", re.compile(pattern), (method,))
    assert any(superlinear(found.use, worst) for worst in suspects(found))


def test_no_other_engine_backtracks(listed: tuple[list[Found], Others]) -> None:
    """Patterns of settings are matched by pydantic in Rust, in linear time, unless configured otherwise."""
    assert listed[1].unreadable == []  # one must be made of names of its module, to be read
    assert len(listed[1].of_pydantic) > 10
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        assert "regex_engine" not in text, path
        assert not re.search(r"^\s*(from re import|import re as|import regex|from regex)", text, re.MULTILINE), path


@pytest.mark.parametrize(
    ("use", "worst"),
    [
        *((_next, Worst("", again)) for again in ("<", "<>;", '<a>;a="', "<a>; rel=", '"', "<a>, ", '"<')),
        (redact, Worst("@ ", "://:")),
        (redact, Worst("", "://:@ ")),
        (redact, Worst("", "://a@")),
        *(
            (_hide_user, Worst("", again))
            for again in ("%", "%e2", "&", "&#1", "&#", "\\", "\\u0061", "jü", "a\u0301\u0327")
        ),
        (_find_blocks, Worst("", "-----BEGIN A-----")),
        (_find_blocks, Worst("", "-----BEGIN A-----END ")),
        (_find_blocks, Worst("-----BEGIN A", "-----END ")),
        (_explain_refusal, Worst("", "inequivalent arg 'a' for queue 'b' received ")),
        (lambda name: fnmatchcase(name, "*a*a*a*b"), Worst("", "a")),
    ],
)
def test_readers_without_expressions_take_linear_time(use: Callable[[str], object], worst: Worst) -> None:
    """Most of these were expressions. 120 `Link` headers of 8,000 `<` blocked every listener for most of an hour."""
    assert superlinear(use, worst) is None


def test_a_source_s_link_headers_are_bounded() -> None:
    """A value over 64 KiB in total is ignored."""
    with pytest.raises(SourceFault, match="longer than 64 KiB"):
        _next(", ".join(["<" * 8_000] * 120))


def test_names_are_matched_in_one_place() -> None:
    """`fnmatch` builds an expression too. It is linear here; the pattern is the operator's, the name is foreign."""
    assert [path.name for path in SOURCE.rglob("*.py") if "fnmatch" in path.read_text()] == ["authority.py"]


def test_sources_are_found(tmp_path: Path) -> None:
    """An expression in a function, with flags, or of a name of its module is found; one of a variable is reported."""
    place = tmp_path / "made_up_expressions"
    place.mkdir()
    (place / "__init__.py").touch()
    (place / "one.py").write_text(
        "import re\n_A = re.compile('a')\ndef f(x):\n    _A.match(x)\n    re.sub(x, '', 'a')\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        found, others = expressions(place)
    assert [(each.where, each.methods) for each in found] == [("one.py: _A", ("match",))]
    assert others.unreadable == ["made_up_expressions/one.py:5"]
