"""Blocks into pieces: cut where the document itself has its joints.

A heading begins a new piece. Within a section, whole paragraphs are put together up to `max_words`. A paragraph that is
longer by itself is cut between its lines if they mean something, else between sentences, and only a sentence
that is too long for a piece between words. No word is ever cut and nothing is lost: without white space,
the pieces' texts joined are the blocks' texts joined.

A word is what white space surrounds; in Chinese and Japanese, which have none, a character, and a full stop ends it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from selftaught.data.documents.blocks import Block

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_STOP = r"[。！？][^\w\s]*"  # ends a sentence without white space behind it
_WORD = re.compile(rf"[{_CJK}][^\w\s]*|[^\s。！？{_CJK}]+(?:{_STOP})?|{_STOP}")
_SENTENCE_END = re.compile(rf"[.!?…]+[\"'”’»)\]]*(?=\s+[^\sa-z])|{_STOP}")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:\w|[Dd]r|Mrs?|Ms|[Pp]rof|St|[Nn]rs?|Nos?|vs|ca|Fig|Figs|Eq|Sec|Vol|pp?|e\.g|i\.e|z\.B|d\.h|bzw)\.$"
)
SHORT = 4  # a section's last piece is short if it holds less than one in so many of the words it may


@dataclass(frozen=True)
class Cut:
    """A piece before it has a name: the headings above it, the page it begins on, its text, its words."""

    section: tuple[str, ...]
    page: int | None
    text: str
    num_words: int


@dataclass(frozen=True)
class _Unit:
    """What is not cut any further, and what joins it to the unit before."""

    text: str
    num_words: int
    glue: str
    page: int | None
    is_heading: bool = False


def count_words(text: str) -> int:
    """How many words a text has."""
    return len(text.split()) if text.isascii() else sum(1 for _ in _WORD.finditer(text))


def cut(blocks: Iterable[Block], max_words: int) -> Iterator[Cut]:
    """Cuts a document into pieces, holding no more of it than two of them.

    Args:
        blocks: cleaned.
        max_words: the most words in a piece, at least 1.

    Yields:
        The pieces, in order.
    """
    section = _Section(max_words)
    path: list[tuple[int, str]] = []
    previous = None
    for block in blocks:
        if block.kind in ("heading", "section"):
            if not section.has_only_headings():
                yield from section.end()
            while path and path[-1][0] >= block.level:
                path.pop()
            path.append((block.level, block.text))
            section.path = tuple(title for _, title in path)
        if block.kind not in ("section", "page"):
            close = block.kind == previous == "item"
            for unit in _units(block, "\n" if close else "\n\n", section.room()):
                yield from section.add(unit)
            previous = block.kind
    yield from section.end()


class _Section:
    """The pieces of one section. The last but one is held back, to share with a last one that is short."""

    def __init__(self, max_words: int) -> None:
        self.path: tuple[str, ...] = ()
        self._max_words = max_words
        self._held: list[_Unit] = []
        self._units: list[_Unit] = []

    def has_only_headings(self) -> bool:
        """Whether the next heading may stand in the same piece as those before it."""
        return not self._held and all(unit.is_heading for unit in self._units)

    def room(self) -> int:
        """The most words of a unit; where only headings are there, so many that it fits beneath them."""
        headings = _sum(self._units) if self.has_only_headings() else 0
        return self._max_words - headings if 2 * headings < self._max_words else self._max_words

    def add(self, unit: _Unit) -> Iterator[Cut]:
        """Takes a unit in; yields what can be no longer changed."""
        if self._units and _sum(self._units) + unit.num_words > self._max_words:
            yield from self._piece(self._held)
            self._held, self._units = self._units, []
        self._units.append(unit)

    def end(self) -> Iterator[Cut]:
        """Yields what is left."""
        if self._held and _sum(self._units) * SHORT < self._max_words:
            self._held, self._units = self._shared(self._held + self._units)
        yield from self._piece(self._held)
        yield from self._piece(self._units)
        self._held, self._units = [], []

    def _shared(self, units: list[_Unit]) -> tuple[list[_Unit], list[_Unit]]:
        """Two pieces as nearly alike in length as their units allow; a heading never ends the first."""
        total, first = _sum(units), 0
        best, gap = len(self._held), abs(total - 2 * _sum(self._held))
        for place, unit in enumerate(units[:-1], start=1):
            first += unit.num_words
            fits = max(first, total - first) <= self._max_words and not unit.is_heading
            if fits and abs(total - 2 * first) < gap:
                best, gap = place, abs(total - 2 * first)
        return units[:best], units[best:]

    def _piece(self, units: list[_Unit]) -> Iterator[Cut]:
        if units:
            text = units[0].text + "".join(unit.glue + unit.text for unit in units[1:])
            yield Cut(self.path, units[0].page, text.strip("\n"), _sum(units))


def _sum(units: Iterable[_Unit]) -> int:
    return sum(unit.num_words for unit in units)


def _units(block: Block, glue: str, room: int) -> Iterator[_Unit]:
    """A block as it is, or, if it is too long for a piece, its parts."""
    whole = _Unit(block.text, count_words(block.text), glue, block.page, block.kind == "heading")
    if whole.num_words <= room:
        yield whole
        return
    for line_number, line in enumerate(block.text.split("\n") if block.kind == "lines" else [block.text]):
        part = replace(whole, text=line, num_words=count_words(line), glue="\n" if line_number else glue)
        if part.num_words <= room:
            yield part
        else:
            yield from _of_a_long_line(part, room)


def _of_a_long_line(line: _Unit, room: int) -> Iterator[_Unit]:
    """Its sentences; those that are too long, in parts of about the same number of words."""
    for text, glue in _split(line.text, _sentence_starts(line.text), line.glue):
        words = [match.start() for match in _WORD.finditer(text)]
        num_parts = -(-len(words) // room)
        if num_parts <= 1:
            yield replace(line, text=text, num_words=len(words), glue=glue)
            continue
        size = -(-len(words) // num_parts)
        for part, part_glue in _split(text, words[size::size], glue):
            yield replace(line, text=part, num_words=count_words(part), glue=part_glue)


def _sentence_starts(text: str) -> list[int]:
    ends = [match.end() for match in _SENTENCE_END.finditer(text) if not _is_abbreviation(text, match)]
    return [end for end in ends if text[end:].strip()]


def _is_abbreviation(text: str, match: re.Match[str]) -> bool:
    return match.group() == "." and bool(_ABBREVIATION.search(text[max(match.end() - 8, 0) : match.end()]))


def _split(text: str, places: list[int], glue: str) -> Iterator[tuple[str, str]]:
    """The parts of a text between places, without the white space at their ends, each with what goes before it."""
    for start, end in zip([0, *places], [*places, len(text)]):
        part = text[start:end]
        yield part.strip(), glue
        spaced = part != part.rstrip() or text[end : end + 1].isspace()
        glue = " " if spaced else ""
