"""Running heads: lines at the top or foot of page after page, which would stand in the middle of sentences.

A page is compared with two before it and two behind it, so that no more than five are held. A running line is taken out
of its page's text. The first time it is kept apart, so that nothing is lost; its repeats are left out.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from selftaught.data.documents.blocks import Contents

EDGE = 2  # lines at the top and at the foot of a page may be running ones
REACH = 2  # pages before and behind: left and right pages may have different heads

_NUMBER = re.compile(r"\d+")
_PAGE_WORD = re.compile(
    r"\b(?:pages?|pg|p|seite|s|página|pagina|pag|стр|sida|side|strona|sayfa)\b|[页頁]", re.IGNORECASE
)


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        number: from 1.
        lines: without white space at their ends.
        heads: running lines that were taken out of them, and are news.
    """

    number: int
    lines: list[str]
    heads: tuple[str, ...] = ()


def without_running_lines(pages: Iterable[Page], contents: Contents) -> Iterator[Page]:
    """Pages without the repeats of their headers and footers; a remark says how many were left out."""
    before: deque[Page] = deque(maxlen=REACH)
    ahead: deque[Page | None] = deque()
    seen: set[str] = set()
    num_left_out, first = 0, ""
    for page in chain(pages, [None] * REACH):
        ahead.append(page)
        current = ahead.popleft() if len(ahead) > REACH else None
        if current is None:
            continue
        kept, left_out = _sorted_out(current, [*before, *(page for page in ahead if page)], seen)
        num_left_out += len(left_out)
        first = first or "".join(left_out[:1])
        yield kept
        before.append(current)
    if num_left_out:
        contents.remark(
            f"{num_left_out} repeat{'s' if num_left_out > 1 else ''} of page headers left out ({first[:60]!r})"
        )


def _sorted_out(page: Page, neighbours: list[Page], seen: set[str]) -> tuple[Page, list[str]]:
    """A page with its running lines apart, without those that are known; and the latter."""
    lines = list(page.lines)
    heads: list[str] = []
    left_out: list[str] = []
    for place in reversed(_edges(lines)):
        line = lines[place]
        pattern = _NUMBER.sub("#", line)
        num_like_it = sum(_has(neighbour, line, page.number) for neighbour in neighbours)
        if num_like_it >= 2 or (num_like_it and pattern in seen):
            (left_out if pattern in seen and _is_plain(line) else heads).insert(0, lines.pop(place))
            seen.add(pattern)
    return Page(page.number, lines, tuple(heads)), left_out


def _edges(lines: list[str]) -> list[int]:
    """The places of the first lines and the last ones that are not blank."""
    places = [place for place, line in enumerate(lines) if line]
    return sorted({*places[:EDGE], *places[-EDGE:]})


def _has(page: Page, line: str, number: int) -> bool:
    """Whether a page has a line like that of another page: the same but for numbers that count the pages."""
    return any(_is_like(page.lines[place], line, page.number - number) for place in _edges(page.lines))


def _is_like(one: str, other: str, distance: int) -> bool:
    if _NUMBER.sub("#", one) != _NUMBER.sub("#", other):
        return False
    steps = [int(a) - int(b) for a, b in zip(_NUMBER.findall(one), _NUMBER.findall(other))]
    has_letters = any(character.isalpha() for character in one)
    return all(step == distance or (step == 0 and has_letters) for step in steps)


def _is_plain(line: str) -> bool:
    """Whether only the page's number is new in a repeat. One word and a number ("Patient 17") may be news."""
    words = re.findall(r"[^\W\d_]+", line)
    return not _NUMBER.search(line) or len(words) != 1 or bool(_PAGE_WORD.search(line))
