"""No regular expression of the source takes more than linear time, whatever others write."""

import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from aiormq.exceptions import ChannelPreconditionFailed

from notifier.adapters.queues.rabbitmq.topology import _explain
from notifier.adapters.registries.link_header import next_link
from notifier.adapters.registries.sql_rights import written_by
from notifier.adapters.signers.key_files import _blocks
from notifier.domain.client_rows import SourceFault
from notifier.domain.redaction import redact
from tests.regular_expressions import SOURCE, Found, Worst, expressions, superlinear, suspects

FOUND, OTHERS = expressions()

# The worst that somebody may write for each: what it begins with, what comes again and again, what it ends with.
LISTED = {
    "adapters/configuration/config_file.py: _OF_KUBERNETES": Worst("NOTIFIER_A", "_SERVICE_PORT_1", "\n"),
    "adapters/configuration/config_file.py: _OURS_OTHERWISE": Worst("NOTIFIER_TEST_", "A", "\n"),
    "adapters/configuration/event_sources.py: _NAME": Worst("a", "-", "\n"),
    "adapters/configuration/mistakes.py: [A-Za-z_][A-Za-z0-9_-]*": Worst("a", "-", "\n"),
    "adapters/http/answer_text.py: _RUN": Worst("", "--------------!"),
    "adapters/http/connections.py: _FINAL": Worst("HTTP/1.1 ", "200"),
    "adapters/http/connections.py: _HEAD_END": Worst("", "\r\n\r"),
    "adapters/http/connections.py: _RETRY_AFTER": Worst("", "\nRetry-After: "),
    "adapters/http/connections.py: _STATUS_LINE": Worst("HTTP/1.1 ", "200"),
    "adapters/http/json_parts.py: _BLANKS": Worst("", " ", "x"),
    "adapters/http/json_parts.py: _MARKS": Worst("", '\\"', "["),
    "adapters/queues/rabbitmq/delays.py: _NO_HOPS": Worst("", '"schedule":{"due":1'),
    "adapters/queues/rabbitmq/source_bindings.py: _MISSING_QUEUE": Worst("", "no queue "),
    "adapters/queues/rabbitmq/source_bindings.py: _REFUSED_USER": Worst("", "refused for user "),
    "adapters/queues/rabbitmq/wire/decoding.py: _OF_SOURCE": Worst("", ".source.a", "."),
    "adapters/registries/remote_rows.py: _CONTROL": Worst("", "a"),
    r"adapters/registries/sql_columns.py: [^\s,;\"\[\]]+": Worst("", "a"),
    r"adapters/registries/sql_faults.py: \n(LINE|DETAIL|HINT|CONTEXT)\b.*": Worst("", "\nDETAILS"),
    "adapters/registries/sql_rights.py: _WRITING": Worst("", "ALL PRIVILEGE "),
    "cli/explain_command.py: _LINK": Worst("", "[a](b"),
    "cli/help.py: _CODE": Worst("", "`"),
    "domain/durations.py: [0-9.]{1,20}": Worst("", "1"),
    "domain/durations.py: _DURATION": Worst("", "1.1"),
    "domain/durations.py: _SIZE": Worst("", "1"),
    "domain/egress.py: _AUTHORITY": Worst("", "a", ":"),
    "domain/egress.py: _NAME": Worst("", "a.", "-"),
    "domain/egress.py: _NO_URI_CHARACTER": Worst("", "a"),
    "domain/egress.py: _NUMBER": Worst("0x", "1", "g"),
    "domain/egress.py: _URI": Worst("https://", "a"),
    "domain/envelopes.py: _NSERVICEBUS_TIME": Worst("", "2026-01-01 00:00:00:123456789 "),
    "domain/foreign_keys.py: _SPELLED": Worst("", "a", "==="),
    "domain/front_channel_context.py: _SPELLED": Worst("", "a", "==="),
    r"domain/issuer_document.py: (?i)(?<![\w-])max-age=\"?([0-9]{1,10})": Worst("", ' max-age="'),
    r"domain/issuer_document.py: (?i)\bno-(cache|store)\b": Worst("", "no-caches "),
    "domain/issuer_document.py: [0-9]{1,10}": Worst("", "1"),
    "domain/moment.py: _RFC_3339": Worst("2026-01-01T00:00:00.", "1"),
    r"domain/queue_state.py: (\d{1,9})\.(\d{1,9})": Worst("", "1"),
    r"domain/redaction.py: ([Bb]earer +)[A-Za-z0-9._~+/=-]+": Worst("", "Bearer  ", '"'),
    r"domain/redaction.py: -----BEGIN [A-Z ]*PRIVATE KEY-----[^\"]*?(?:-----END [A-Z ]*-----|(?=\")|\Z)": Worst(
        "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----BEGIN "
    ),
    "domain/redaction.py: _NO_LETTER": Worst("", "a"),
    "domain/redaction.py: _PLAIN": Worst("", "a", "!"),
    "domain/redaction.py: _UNSAFE": Worst("", "a"),
    "domain/redaction.py: _USER": Worst("", "://a"),
    "domain/redaction.py: _WORD": Worst("", "a"),
    r"domain/redaction.py: eyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*){0,4}": Worst("", "eyJ.eyJeyJ"),
    "domain/reply.py: _MADE_UP_BY_THE_BROKER": Worst("amq.rabbitmq.reply-to.", "a."),
    "domain/sourced.py: _SECRET": Worst("", "authori-subscription-"),
    "domain/trace_context.py: _FORM": Worst("", "00-"),
    "domain/upstream_token.py: _UNFIT": Worst("", "a"),
    "domain/validation.py: ^(Input|Value|Datetime|String|List) should ": Worst("", "Input shoul"),
    "operations/deferral_watch.py: _HOURS": Worst("", "1.1 "),
    "operations/event_file.py: _PLACE": Worst("", " at line 1 "),
    "operations/runbook.py: _HEADING": Worst("", "\n## "),
    "publisher/address.py: _HOST": Worst("", "a", ":"),
    "server/authorization.py: _HOST": Worst("", "a.", "!"),
    "server/openapi.py: _PARAMETER": Worst("", "{a:"),
    "server/openapi.py: _WORDS": Worst("", "-"),
    "settings/clients.py: _HEADER_VALUE": Worst("a", " \t"),
    "settings/clients.py: _TOKEN": Worst("", "a", ":"),
    "settings/cloud_key_settings.py: _ARN": Worst("arn:aws:kms:eu:123456789012:key/", "a", ":"),
    "settings/cloud_key_settings.py: _GOOGLE_NAME": Worst("projects/", "a", "!"),
    "settings/cloud_key_settings.py: _KEY_ID": Worst("alias/", "a", ":"),
    "settings/keycloak_settings.py: /(realms|admin)(/|$)": Worst("", "/realmss"),
    "settings/source_settings.py: [!#$%&'*+.^_`|~0-9A-Za-z-]+": Worst("", "a", ":"),
    r"settings/sql_settings.py: (?i)\b(server|data source|host)\s*=": Worst("", "host "),
    "settings/sql_settings.py: [/?#]": Worst("", "a"),
    "settings/sql_settings.py: _FILE": Worst("sqlite:///", "a", "\n"),
    "settings/upstream_settings.py: _ASKED": Worst("", ":subs"),
    "settings/values.py: [^!-~]": Worst("", "a"),
    "settings/values.py: _HOST_AND_PORT": Worst("", "a", ":"),
    "settings/vault_settings.py: /v1(/|$)": Worst("", "/v12"),
    "settings/web_settings.py: _ORIGIN": Worst("https://", "a", "/"),
}


def _next(links: str) -> str | None:
    return next_link(links, "https://id.example.com/clients")


def _written_by_one(grant: str) -> str | None:
    return written_by([grant])


def _explain_refusal(text: str) -> str:
    return _explain("queue", ChannelPreconditionFailed(text))


def _as_a_client_id(name: str) -> bool:
    return fnmatchcase(name, "*a*a*a*b")


def test_each_regular_expression_is_listed() -> None:
    """A new one needs its worst text in LISTED above, so that its author thinks of it."""
    assert sorted({found.where for found in FOUND} ^ set(LISTED)) == []
    assert OTHERS.unreadable == []  # one must be made of names of its module, to be read here


@pytest.mark.parametrize("found", FOUND, ids=[found.where for found in FOUND])
def test_the_worst_text_costs_linear_time(found: Found) -> None:
    """64 KiB of the worst that we could think of."""
    assert superlinear(found.use, LISTED.get(found.where, Worst("", "a"))) is None


@pytest.mark.parametrize("found", FOUND, ids=[found.where for found in FOUND])
def test_the_checker_finds_no_text_that_costs_more(found: Found) -> None:
    """Nor any that the expression's automaton gives away. Who fails here uses methods of str, or bounds repetitions."""
    assert [worst for worst in suspects(found) if superlinear(found.use, worst)][:1] == []


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
def test_the_checker_finds_what_is_slow(pattern: str, method: str) -> None:
    """Expressions that were in the source, and classics: quadratic and exponential."""
    found = Found("here", re.compile(pattern), (method,))
    assert any(superlinear(found.use, worst) for worst in suspects(found))


def test_no_other_engine_backtracks() -> None:
    """Patterns of settings are matched by pydantic in Rust, in linear time, unless told otherwise."""
    assert len(OTHERS.of_pydantic) > 10
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
        (_written_by_one, Worst("GRANT ", "a ON ")),
        (_written_by_one, Worst("GRANT ", "a ON a ", " TO ")),
        (_blocks, Worst("", "-----BEGIN A-----")),
        (_blocks, Worst("", "-----BEGIN A-----END ")),
        (_blocks, Worst("-----BEGIN A", "-----END ")),
        (_explain_refusal, Worst("", "inequivalent arg 'a' for queue 'b' received ")),
        (_as_a_client_id, Worst("", "a")),
    ],
)
def test_what_reads_without_expressions_costs_linear_time(use: Callable[[str], object], worst: Worst) -> None:
    """Most of these had an expression once. 120 headers `Link` of 8,000 `<` held every listener for most of an hour."""
    assert superlinear(use, worst) is None


def test_a_source_s_link_headers_are_bounded() -> None:
    """What is longer than 64 KiB in all is no list's next page."""
    with pytest.raises(SourceFault, match="longer than 64 KiB"):
        _next(", ".join(["<" * 8_000] * 120))


def test_names_are_matched_in_one_place() -> None:
    """`fnmatch` makes an expression too. It tries no place twice; the pattern is the operator's, the name anybody's."""
    assert [path.name for path in SOURCE.rglob("*.py") if "fnmatch" in path.read_text()] == ["authority.py"]


def test_sources_are_found(tmp_path: Path) -> None:
    """An expression within a function, with flags, or of a name of its module is found; one of a variable is told."""
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
