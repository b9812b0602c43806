"""A list that is read by pages while it changes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.features.registries.page_requests import EndlessList, PageLimit
from notifier.features.registries.shifting_pages import ShiftingPages

SIZE = 4
NAMES = [f"{nth:02}" for nth in range(40)]


@given(
    st.sets(st.sampled_from(NAMES), min_size=1),
    st.lists(st.tuples(st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES))), max_size=12),
)
def test_what_stays_in_the_list_is_read(listed: set[str], changes: list[tuple[set[str], set[str]]]) -> None:
    """Whatever is deleted and added between two pages."""
    pages, found, staying, asked = ShiftingPages(SIZE), set[str](), set(listed), 0
    while pages.first is not None:
        page = sorted(listed)[pages.first : pages.first + SIZE]
        if pages.take(page):
            found.update(page)
        if changes:
            gone, added = changes.pop()
            if len(listed - gone | added) > 0:
                listed = listed - gone | added
                staying -= gone
        asked += 1
    assert staying <= found


def test_a_list_that_stands_is_read_with_one_page_more_than_it_has() -> None:
    """Each page but the first begins with a client that is known."""
    pages, firsts = ShiftingPages(SIZE), []
    while pages.first is not None:
        firsts.append(pages.first)
        assert pages.take(NAMES[:8][pages.first : pages.first + SIZE])
    assert firsts == [0, 3, 6, 7]


def test_a_page_that_comes_twice_hides_no_other() -> None:
    """A proxy may do that."""
    pages, found = ShiftingPages(SIZE), set[str]()
    first_page = NAMES[:SIZE]
    for nth in range(30):
        if pages.first is None:
            break
        page = first_page if nth in (0, 1) else NAMES[:10][pages.first : pages.first + SIZE]
        if pages.take(page):
            found.update(page)
    assert found == set(NAMES[:10])


def test_a_list_that_never_ends_is_given_up() -> None:
    """The same page for each offset."""
    pages = ShiftingPages(SIZE)
    for _ in range(20):
        pages.take(NAMES[:SIZE])
    with pytest.raises(EndlessList, match="20 pages in a row"):
        pages.take(NAMES[:SIZE])


def test_a_reading_has_a_limit_of_pages() -> None:
    """However many clients its server makes up."""
    limit = PageLimit()
    for nth in range(9_999):
        limit.before_next(nth + 1)
    with pytest.raises(EndlessList, match=r"more than 10,000 pages; if .* put more clients on each page"):
        limit.before_next(10_000)


def test_pages_without_a_new_client_count_in_a_row() -> None:
    """A server may repeat some after clients were removed."""
    limit = PageLimit()
    for nth in range(200):
        limit.before_next(1 + nth // 20)
