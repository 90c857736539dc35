"""Running heads: what repeats on page after page is said once, and what only looks like it stays."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selftaught.data.documents.blocks import Contents
from selftaught.data.documents.running import REACH, Page, without_running_lines

TEXT = ["This is the text of a page.", "It has five lines.", "They are its own.", "None is at an edge.", "So it ends."]


def told(*pages: list[str]) -> list[Page]:
    return list(without_running_lines([Page(number, lines) for number, lines in enumerate(pages, start=1)], Contents()))


def own(number: int) -> list[str]:
    """Lines that no other page has."""
    return [f"{chr(96 + number)} {line}" for line in TEXT]


@pytest.mark.parametrize(
    "head",
    [
        "Lamps & Co.",
        "{}",
        "- {} -",
        "Page {} of 9",
        "{} | Lamps & Co.",
        "Lamps & Co., 2nd edition {}",
        "Seite {}",
        "第 {} 页",
    ],
)
@pytest.mark.parametrize("at_foot", [False, True])
def test_a_running_line_is_kept_once_apart_from_the_text(head: str, at_foot: bool) -> None:
    heads = [head.format(number) for number in range(1, 10)]
    pages = [[*own(n), heads[n - 1]] if at_foot else [heads[n - 1], "", *own(n)] for n in range(1, 10)]
    made = told(*pages)
    assert [[line for line in page.lines if line] for page in made] == [own(n) for n in range(1, 10)]
    assert [page.heads for page in made] == [(heads[0],), *[()] * 8]


def test_left_and_right_pages_may_differ() -> None:
    made = told(*([["Left", "Right"][n % 2], *own(n)] for n in range(1, 10)))
    assert [page.heads for page in made[:4]] == [(), (), ("Right",), ("Left",)]
    assert all(page.lines == own(page.number) and not page.heads for page in made[4:])


@pytest.mark.parametrize(
    "lines",
    [
        ["Chapter one", "Chapter two", "Chapter three", "Chapter four"],  # other words
        ["5", "5", "5", "5"],  # a number that does not count the pages
        ["Total 12 EUR", "Total 14 EUR", "Total 15 EUR", "Total 19 EUR"],
        ["Repeated", "Not", "Nor this", "Repeated"],  # too far apart
    ],
)
def test_what_only_looks_like_a_running_line_stays(lines: list[str]) -> None:
    pages = [[line, *own(number)] for number, line in enumerate(lines, start=1)]
    assert told(*pages) == [Page(number, page) for number, page in enumerate(pages, start=1)]


def test_two_pages_are_too_few_to_tell() -> None:
    pages = [["Lamps & Co.", *own(1)], ["Lamps & Co.", *own(2)]]
    assert [page.lines for page in told(*pages)] == pages


def test_what_repeats_in_the_middle_of_pages_stays() -> None:
    pages = [
        [f"{n} top", f"{n * n} two", "Same on all.", f"{n * n} three", f"{n * n * n} foot"] for n in (3, 11, 6, 20, 14)
    ]
    assert [page.lines for page in told(*pages)] == pages


def test_one_word_and_a_number_may_be_news_and_is_only_set_apart() -> None:
    made = told(*([f"Patient {n}", *own(n)] for n in range(1, 6)))
    assert [page.heads for page in made] == [(f"Patient {n}",) for n in range(1, 6)]
    assert [page.lines for page in made] == [own(n) for n in range(1, 6)]


def test_the_remark_counts_what_was_left_out() -> None:
    contents = Contents()
    pages = [Page(n, ["Lamps & Co.", *own(n)]) for n in range(1, 6)]
    list(without_running_lines(pages, contents))
    assert contents.remarks == ["4 repeats of page headers left out ('Lamps & Co.')"]


def test_no_more_pages_are_read_than_are_compared() -> None:
    read: list[int] = []

    def pages() -> Iterator[Page]:
        for number in range(1, 20):
            read.append(number)
            yield Page(number, own(number))

    for page in without_running_lines(pages(), Contents()):
        assert len(read) <= page.number + REACH


some_lines = st.sampled_from(["", "a", "b", "Page 1", "Page 2", "Page 3", "7", "8", "Patient 3", "Patient 4", "x y"])


@settings(max_examples=200, deadline=None)
@given(pages=st.lists(st.lists(some_lines, max_size=6), max_size=8))
def test_no_line_is_lost_but_repeats_of_one_that_was_kept(pages: list[list[str]]) -> None:
    """The reference is the pages themselves: line for line, what is gone is said elsewhere, but for page numbers."""
    contents = Contents()
    numbered = [Page(number, lines) for number, lines in enumerate(pages, start=1)]
    made = list(without_running_lines(numbered, contents))
    assert [page.number for page in made] == [page.number for page in numbered]
    kept = {without_digits(line) for page in made for line in (*page.lines, *page.heads)}
    num_gone = 0
    for before, after in zip(numbered, made):
        gone = list(before.lines)
        for line in (*after.lines, *after.heads):
            gone.remove(line)  # fails if a line was made up
        num_gone += len(gone)
        assert not [line for line in gone if line.startswith("Patient") or without_digits(line) not in kept]
    assert bool(contents.remarks) == bool(num_gone)
    assert not num_gone or contents.remarks[0].startswith(f"{num_gone} repeat")


def without_digits(line: str) -> str:
    return "".join(character for character in line if not character.isdigit())
