"""Test displayed texts: printable, without secrets, with the nearest name, and shortened lists of clients."""

import html
import json
import sys
import time
import unicodedata
from collections.abc import Iterable, Sequence
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.model.client import Client
from notifier.model.errors import InputIssue
from notifier.model.ignored_members import (
    MAX_KEPT_CLIENTS,
    MAX_NAMED_CLIENTS,
    IgnoredMembers,
    IssueGroup,
    group_issues,
)
from notifier.model.nearest import find_nearest_name, suggest_client, suggest_issuer
from notifier.model.printable import json_text, printable, printable_lines, stray_character
from notifier.model.redaction import redact_secret
from notifier.model.registry import Issuer, Registry

# ── Foreign text is shown without control characters of a terminal ───────────────────────────────────────────────────


OBEYED = (
    "\x00\x07\x08\t\n\r\x1b\x7f\x80\x85\x90\x9b\x9d"
    "\u061c\u200b\u200e\u200f\u2028\u2029\u202a\u202e\u2066\u2069\ufeff\U000e0041"
)
JSON = st.recursive(
    st.none() | st.booleans() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@pytest.mark.parametrize("char", OBEYED)
def test_a_character_that_a_terminal_obeys_is_replaced(char: str) -> None:
    """Controls, bidirectional marks and other format characters, line and paragraph separators."""
    assert printable(f"a{char}b") == "a\N{REPLACEMENT CHARACTER}b"
    assert printable_lines(f"a{char}b\nc") == ("a\nb\nc" if char == "\n" else "a\N{REPLACEMENT CHARACTER}b\nc")


def test_printable_characters_stay() -> None:
    """Names of people and clients in any script."""
    assert printable("Łukasz 山田 – شركة [bold] 🎉") == "Łukasz 山田 – شركة [bold] 🎉"


@given(JSON, st.none() | st.integers(1, 4))
def test_json_loses_nothing(document: object, indent: int | None) -> None:
    """It reads back as the same document, and every line is printable."""
    text = json_text(document, indent=indent)
    assert json.loads(text) == document
    assert all(line.isprintable() for line in text.split("\n"))


@given(st.characters(categories=["Cs"]))
def test_half_of_a_surrogate_pair_is_escaped_too(half: str) -> None:
    """UTF-8 cannot encode it."""
    assert json.loads(json_text({half: half})) == {half: half}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("shop", None),
        ("my shop", None),
        ("it's-a-shop", None),
        ("Łukasz", None),
        ("", None),
        (" shop", "begins with a blank; remove it"),
        ("shop\n", "ends with U+000A (a control character); remove it"),
        ("shop\u00a0", "ends with U+00A0 (NO-BREAK SPACE); remove it"),
        ("'shop'", "begins with the quotation mark ', as part of the value; remove it"),
        ("shop”", "ends with the quotation mark ”, as part of the value; remove it"),
        ("sh\u200bop", "holds the invisible character U+200B (ZERO WIDTH SPACE); remove it"),
        ("sh\u00adop", "holds the invisible character U+00AD (SOFT HYPHEN); remove it"),
    ],
)
def test_surrounding_characters_are_reported(text: str, expected: str | None) -> None:
    """Blanks, quotation marks and invisible characters, which are easy to overlook."""
    assert stray_character(text) == expected


# ── A secret is found in each of the usual spellings in which receivers quote it ─────────────────────────────────────


SUBJECT = "Jürgen O'Neill/a+b=<c>&d@example.com"


@pytest.mark.parametrize(
    "quoted",
    [
        SUBJECT,
        SUBJECT.lower(),
        json.dumps(SUBJECT),
        json.dumps(SUBJECT, ensure_ascii=False),
        json.dumps(SUBJECT).replace("/", "\\/"),
        quote(SUBJECT),
        quote(SUBJECT, safe="").lower(),
        quote_plus(SUBJECT),
        html.escape(SUBJECT),
        "".join(each if each.isascii() and each.isalnum() else f"&#{ord(each)};" for each in SUBJECT),
        "".join(f"&#x{ord(each):x};" for each in SUBJECT),
        "".join(f"\\u{ord(each):04X}" for each in SUBJECT),
        "".join(f"%{each:02x}" for each in SUBJECT.encode()),
        html.escape(SUBJECT).replace("ü", "&uuml;"),
        unicodedata.normalize("NFD", SUBJECT).upper(),
        json.dumps(unicodedata.normalize("NFD", SUBJECT)),
        "\u200b".join(SUBJECT),
        json.dumps("\u200b".join(SUBJECT)),
        quote("\u00ad".join(SUBJECT)),
    ],
)
def test_each_spelling_is_taken_out(quoted: str) -> None:
    """PHP escapes slashes in JSON, .NET plus signs; and some change the case of names."""
    assert (
        redact_secret(f"no session of {quoted} here", SUBJECT, "[sub]").replace('"', "") == "no session of [sub] here"
    )


@pytest.mark.parametrize("secret", ["Straße 1", "İlker+1@x.io", "\U0001f600+a\\b", "a%2Bb", "&amp;c"])
def test_other_lengths_and_literal_escapes_are_taken_out(secret: str) -> None:
    """In lower and upper case, and if the secret looks as if it were escaped."""
    for quoted in (
        secret,
        secret.lower(),
        secret.upper(),
        json.dumps(secret)[1:-1],
        quote(secret),
        html.escape(secret),
    ):
        assert redact_secret(f"no {quoted} here", secret, "[sub]") == "no [sub] here"


def test_number_of_thousands_of_digits_does_not_end_the_decoding() -> None:
    """Python refuses to convert it."""
    assert redact_secret(f"&#97;lice &#{'1' * 5000};", "alice", "[sub]").startswith("[sub] ")


def test_long_secret_costs_about_as_much_as_a_short_one() -> None:
    """A receiver may also serve the token endpoint, and so choose both token and text."""

    def seconds(secret: str) -> float:
        started = time.process_time()
        redact_secret(f"{'a' * 4_000}{secret}", secret, "[token]")
        return time.process_time() - started

    short, long = (min(seconds(f"{'a' * size}b") for _ in range(3)) for size in (15, 8191))
    assert long < 10 * short + 0.01


def test_invisible_secrets_hide_nothing() -> None:
    """There is nothing to see."""
    assert redact_secret("no\u200b user", "\u200b", "[sub]") == redact_secret("no user", "", "[sub]") == "no user"


def test_the_rest_of_the_text_stays() -> None:
    """A backslash in the replacement is not interpreted."""
    assert redact_secret("Ünknown user alice; ALICE", "alice", "[\\1]") == "Ünknown user [\\1]; [\\1]"


# ── The most similar name, found at a bounded cost ───────────────────────────────────────────────────────────────────


NEAR, OTHER = "https://id.example.com", "https://b.example.org/realms/b/"
NEAREST_REGISTRY = Registry(
    issuers={NEAR: Issuer(iss=NEAR), OTHER: Issuer(iss=OTHER, publishers=frozenset({"b"}))},
    clients={
        NEAR: {
            name: Client(iss=NEAR, client_id=name, backchannel_logout_uri=None) for name in ("web-shop", "Mail", "café")
        },
        OTHER: {"wiki": Client(iss=OTHER, client_id="wiki", backchannel_logout_uri=None)},
    },
)


@pytest.mark.parametrize(
    ("iss", "hint"),
    [
        (f"{NEAR}/", f"did you mean {NEAR}, without the slash at the end?"),
        (OTHER.rstrip("/"), f"did you mean {OTHER}, with a slash at the end?"),
        ("http://id.example.com", f"did you mean {NEAR}?"),
        ("https://ID.exampel.com", f"did you mean {NEAR}?"),
        ("https://something.else", None),
    ],
)
def test_the_nearest_issuer_is_named(iss: str, hint: str | None) -> None:
    """With the difference, if it is hard to see."""
    found = suggest_issuer(iss, NEAREST_REGISTRY)
    assert (found and found.text) == hint


@pytest.mark.parametrize(
    ("client_id", "hint"),
    [
        ("web_shop", "did you mean web-shop?"),
        ("mail", "did you mean Mail?"),
        ("Mail ", "did you mean Mail? The given name ends with a blank; remove it"),
        ("“Mail”", "did you mean Mail? The given name begins with the quotation mark “"),
        ("Ma\u200bil", "did you mean Mail? The given name holds the invisible character U+200B"),
        ("wiki", f"there is one of that name at the issuer {OTHER}"),
        ("cafe\u0301", "did you mean café, which is in the Unicode form NFC?"),
        ("nothing-like-it", None),
    ],
)
def test_the_nearest_client_is_named(client_id: str, hint: str | None) -> None:
    """Of the same issuer, or the same name at another issuer."""
    found = suggest_client(NEAR, client_id, NEAREST_REGISTRY)
    assert (found is None) == (hint is None)
    assert found is None or found.text.startswith(hint or "")


@pytest.mark.parametrize("length", [48, 192, 1024])
def test_names_made_to_be_slow_take_a_bounded_search(length: int) -> None:
    """The owner of a list chooses its names: 100 of 195 times the same letter blocked the event loop for 0.3 s."""
    calls = list[str]()
    sys.setprofile(lambda _frame, event, _arg: calls.append(event))
    try:
        found = find_nearest_name(f"x{'a' * (length - 2)}y", [f"{n:03}{'a' * (length - 6)}{n:03}" for n in range(100)])
    finally:
        sys.setprofile(None)
    assert len(calls) < 1_000_000
    assert (found is None) == (length > 48)


@pytest.mark.parametrize("changed", ["app-43", "app42", "app-24"])
def test_a_long_name_is_found_by_the_part_that_differs(changed: str) -> None:
    """As long as that part is short."""
    known, name = (f"https://{app}.{'tenants.' * 8}example.com/metadata" for app in ("app-42", changed))
    assert find_nearest_name(name, [NEAR, known]) == known


def test_publisher_receives_only_names_of_its_issuers() -> None:
    """A publisher does not receive the name of an issuer for which it may not publish."""
    of_b, of_all = suggest_issuer(OTHER.rstrip("/"), NEAREST_REGISTRY), suggest_issuer(f"{NEAR}/", NEAREST_REGISTRY)
    assert of_b is not None
    assert of_all is not None
    assert [of_b.concerns("b"), of_b.concerns("c"), of_b.concerns(None), of_all.concerns(None)] == [
        True, False, False, True,
    ]  # fmt: skip


# ── Ignored members of clients of remote sources, reported by kind: few, for any number of clients ───────────────────


ISS = "https://id.example.com"
TYP, CLAIMS = ("idp", "notifier.typ: no"), ("idp", "notifier.claims: no")


def place(name: str) -> str:
    return f"client {name!r} of registry source idp"


def ignored_of(names: Iterable[str], *kinds: tuple[str, str]) -> IgnoredMembers:
    """Return the ignored members of these clients."""
    leaving = IgnoredMembers()
    for name in names:
        for kind in kinds:
            leaving.add((ISS, name), kind, InputIssue(place(name), kind[1]))
    return leaving


def names(count: int) -> Sequence[str]:
    return [f"c{nth}" for nth in range(count)]


def kinds_of(found: IgnoredMembers) -> list[tuple[str, int]]:
    return [(each.first[0].text, each.count) for each in found.by_kind()]


def test_hundred_thousand_clients_keep_a_hundred_texts() -> None:
    """The number is exact."""
    found = ignored_of(names(100_000), TYP, CLAIMS)
    assert found.total == 200_000
    assert kinds_of(found) == [(TYP[1], 100_000), (CLAIMS[1], 100_000)]
    assert [len(each.first) for each in found.by_kind()] == [MAX_KEPT_CLIENTS, MAX_KEPT_CLIENTS]


def test_a_change_of_some_clients_keeps_the_counts_right() -> None:
    """As a full count: for removed, added and changed clients."""
    old = ignored_of(names(500), TYP)
    now = old.updated(ignored_of(["c400", "new"], CLAIMS), {"c400", "c499", "new", "plain"})
    assert kinds_of(now) == [(TYP[1], 498), (CLAIMS[1], 2)]
    assert [*now.since(old)] == [
        IssueGroup(first=[InputIssue(place(name), CLAIMS[1]) for name in ("c400", "new")], count=2)
    ]
    none = now.updated(ignored_of([]), {*names(500), "new"})
    assert (none.total, list(none.by_kind())) == (0, [])


def test_after_a_repair_of_the_first_the_next_are_reported() -> None:
    """Their texts were not kept; the ignored members were."""
    found = ignored_of(names(300), TYP).updated(ignored_of([]), {*names(MAX_KEPT_CLIENTS)})
    [each] = found.by_kind()
    assert each.count == 200
    assert len(each.first) == MAX_KEPT_CLIENTS
    assert each.first[0] == InputIssue(place("c100"), TYP[1])


def test_text_has_the_first_and_the_count_of_others() -> None:
    """For one client the text has no count."""
    [one] = ignored_of(names(1), TYP).by_kind()
    assert one.mistake == InputIssue(place("c0"), TYP[1])
    [many] = ignored_of(names(100_000), TYP).by_kind()
    assert many.mistake.path == place("c0")
    assert many.mistake.text.startswith("notifier.typ: no; likewise of client 'c1', client 'c2', ")
    assert many.mistake.text.endswith(f"client 'c{MAX_NAMED_CLIENTS}' and {100_000 - 1 - MAX_NAMED_CLIENTS:,} more")


def test_faults_are_grouped_by_source_and_text() -> None:
    """A list with a different text for each client does not fill a page."""
    same = [*group_issues([InputIssue(place(name), "no") for name in names(100_000)])]
    assert same == [
        IssueGroup(first=[InputIssue(place(name), "no") for name in names(MAX_KEPT_CLIENTS)], count=100_000)
    ]
    made_up = [*group_issues([InputIssue(place(name), f"no {name}") for name in names(1000)])]
    assert len(made_up) == MAX_KEPT_CLIENTS + 1
    assert (sum(each.count for each in made_up), made_up[-1].count) == (1000, 1000 - MAX_KEPT_CLIENTS)
    assert "notifier clients list" in made_up[-1].mistake.text


def test_different_texts_are_not_grouped() -> None:
    """Aliases of each client are different."""
    kinds_of = [InputIssue(f"client 'c{nth}'", f"alias 'a{nth}' is client 'shop' already") for nth in range(2)]
    text = IssueGroup(first=kinds_of, count=2).mistake.text
    assert text == "alias 'a0' is client 'shop' already; more of this kind: client 'c1'"
