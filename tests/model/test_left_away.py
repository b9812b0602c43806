"""What sources may not say of clients, told by kinds: few, however many clients these concern."""

from collections.abc import Iterable, Sequence

from notifier.model.errors import Mistake
from notifier.model.left_away import FIRST, NAMED, Alike, Leaving, LeftAway, alike

ISS = "https://id.example.com"
TYP, CLAIMS = ("idp", "notifier.typ: no"), ("idp", "notifier.claims: no")


def place(name: str) -> str:
    return f"client {name!r} of registry source idp"


def said(names: Iterable[str], *kinds: tuple[str, str]) -> LeftAway:
    """What is left away of these clients."""
    leaving = Leaving()
    for name in names:
        for kind in kinds:
            leaving.add((ISS, name), kind, Mistake(place(name), kind[1]))
    return leaving.collected()


def names(count: int) -> Sequence[str]:
    return [f"c{nth}" for nth in range(count)]


def told(found: LeftAway) -> list[tuple[str, int]]:
    return [(each.first[0].text, each.count) for each in found.by_kind()]


def test_a_hundred_thousand_clients_cost_a_hundred_texts() -> None:
    """All share the names of what is left away; the number is whole."""
    found = said(names(100_000), TYP, CLAIMS)
    assert found.total == 200_000
    assert told(found) == [(TYP[1], 100_000), (CLAIMS[1], 100_000)]
    assert [len(each.first) for each in found.by_kind()] == [FIRST, FIRST]
    assert len(set(map(id, found.kinds[ISS].values()))) == 1


def test_a_change_of_some_clients_keeps_the_counts_right() -> None:
    """As if all were looked at: those that went, those that came, and those that say something else."""
    old = said(names(500), TYP)
    now = old.updated(said(["c400", "new"], CLAIMS), {"c400", "c499", "new", "plain"}).collected()
    assert told(now) == [(TYP[1], 498), (CLAIMS[1], 2)]
    assert now.since(old) == ([Mistake(place(name), CLAIMS[1]) for name in ("c400", "new")], 2)
    none = now.updated(said([]), {*names(500), "new"}).collected()
    assert (none.total, list(none.by_kind())) == (0, [])


def test_once_the_first_are_mended_the_next_are_named() -> None:
    """Their texts were not kept; what is left away was."""
    found = said(names(300), TYP).updated(said([]), {*names(FIRST)}).collected()
    [each] = found.by_kind()
    assert each.count == 200
    assert len(each.first) == FIRST
    assert each.first[0] == Mistake(place("c100"), TYP[1])


def test_a_text_names_the_first_and_counts_the_others() -> None:
    """One client alone is told as it is."""
    [one] = said(names(1), TYP).by_kind()
    assert one.mistake == Mistake(place("c0"), TYP[1])
    [many] = said(names(100_000), TYP).by_kind()
    assert many.mistake.path == place("c0")
    assert many.mistake.text.startswith("notifier.typ: no; likewise of client 'c1', client 'c2', ")
    assert many.mistake.text.endswith(f"client 'c{NAMED}' and {100_000 - 1 - NAMED:,} more")


def test_faults_are_told_by_source_and_text() -> None:
    """And a list that makes up a text for each client fills no page."""
    same = [*alike([Mistake(place(name), "no") for name in names(100_000)])]
    assert same == [Alike(first=[Mistake(place(name), "no") for name in names(FIRST)], count=100_000)]
    made_up = [*alike([Mistake(place(name), f"no {name}") for name in names(1000)])]
    assert len(made_up) == FIRST + 1
    assert (sum(each.count for each in made_up), made_up[-1].count) == (1000, 1000 - FIRST)
    assert "notifier clients list" in made_up[-1].mistake.text


def test_what_is_not_said_of_the_others_word_for_word_is_no_likewise() -> None:
    """The aliases of each client are its own."""
    told = [Mistake(f"client 'c{nth}'", f"alias 'a{nth}' is client 'shop' already") for nth in range(2)]
    text = Alike(first=told, count=2).mistake.text
    assert text == "alias 'a0' is client 'shop' already; more of this kind: client 'c1'"
