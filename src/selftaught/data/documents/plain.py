"""Plain text and Markdown, line by line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from selftaught.data.documents.blocks import MAX_BLOCK, Block, Contents
from selftaught.data.documents.decode import open_text
from selftaught.data.documents.table import Rows

_WIDEST = 120  # of a line that was wrapped by hand
_ITEM = re.compile(r"\s*(?:[-*+•]|\d{1,3}[.)])\s")
_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))??(?:[ \t]+#+)?[ \t]*")
_UNDERLINE = re.compile(r" {0,3}(?:=+|-+)[ \t]*")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_RULE = re.compile(r" {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})")
_TABLE_RULE = re.compile(r" {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*")
_CELL_END = re.compile(r"(?<!\\)\|")
_PICTURE_DATA = re.compile(r"(data:[\w/+.-]+;base64,)[A-Za-z0-9+/=]+")
_FRONT_KEY = re.compile(r"[\w-]+[ \t]*:|#")  # a rule that opens the document may look like front matter
_FRONT_TITLE = re.compile(r"title:[ \t]*([\"']?)(.+?)\1[ \t]*")


def read_text(path: Path, contents: Contents) -> Iterator[Block]:
    """Paragraphs, which blank lines part."""
    with open_text(path, contents) as file:
        yield from paragraphs(file)


def paragraphs(source: Iterable[str]) -> Iterator[Block]:
    """The paragraphs of lines."""
    lines: list[str] = []
    size = 0
    for line in source:
        if line.strip():
            lines.append(line.rstrip("\n"))
            size += len(line)
        if lines and (not line.strip() or size > MAX_BLOCK):
            yield _paragraph(lines)
            lines, size = [], 0
    if lines:
        yield _paragraph(lines)


def _paragraph(lines: list[str]) -> Block:
    """Lines of about one width were wrapped; those of others are an author's own."""
    widths = [len(line) for line in lines[:-1]]
    wrapped = not widths or (max(widths) <= _WIDEST and min(widths) > 0.6 * max(widths) and max(widths) >= 30)
    is_list = any(_ITEM.match(line) for line in lines)
    return Block("paragraph" if wrapped and not is_list else "lines", "\n".join(lines))


def read_markdown(path: Path, contents: Contents) -> Iterator[Block]:
    """Headings, paragraphs, lists, code and tables. Marks within a line (links, emphasis) stay as they are."""
    with open_text(path, contents) as file:
        for block in _Markdown(contents).blocks(file):
            if block.kind == "heading" and contents.title is None:
                contents.title = block.text
            yield block


class _Markdown:
    """The lines that are not yet a block, and what they would be."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._lines: list[str] = []
        self._size = 0
        self._fence = ""
        self._rows = Rows()
        self._num_columns = 0  # of the table that is open

    def blocks(self, lines: Iterable[str]) -> Iterator[Block]:
        in_front = False
        for number, raw in enumerate(lines):
            line = _PICTURE_DATA.sub(r"\1…", raw.rstrip("\n"))
            if number == 1:
                in_front = in_front and bool(_FRONT_KEY.match(line))
            if number == 0 and line.rstrip() == "---":
                in_front = True
            elif in_front:
                yield from self._front_matter(line)
                in_front = line.rstrip() not in ("---", "...")
            else:
                yield from self._line(line)
            if self._size > MAX_BLOCK:
                yield from self._flush()
        yield from self._flush()

    def _front_matter(self, line: str) -> Iterator[Block]:
        title = _FRONT_TITLE.fullmatch(line)
        if title:
            self._contents.title = title[2]
        if line.rstrip() in ("---", "..."):
            yield from self._flush("lines")
        else:
            self._add(line)

    def _line(self, line: str) -> Iterator[Block]:
        if self._fence:
            self._add(line)
            if line.strip().startswith(self._fence) and not line.strip().strip(self._fence[0]):
                self._fence = ""
                yield from self._flush("lines")
        elif fence := _FENCE.match(line):
            yield from self._flush()
            self._fence = fence[1]
            self._add(line)
        elif not line.strip():
            yield from self._flush()
        elif self._num_columns:
            yield from self._row(line)
        elif (heading := _HEADING.fullmatch(line)) and heading[2]:
            yield from self._flush()
            yield Block("heading", heading[2], len(heading[1]))
        elif self._lines and _UNDERLINE.fullmatch(line) and not self._is_list():
            yield Block("heading", " ".join(self._lines), 1 if "=" in line else 2)
            self._lines, self._size = [], 0
        elif _RULE.fullmatch(line):
            yield from self._flush()
        elif self._begins_table(line):
            header = _cells(self._lines.pop())
            yield from self._flush()
            self._num_columns = len(header)
            list(self._rows.head(header))
        else:
            self._add(line)

    def _begins_table(self, line: str) -> bool:
        above = self._lines[-1] if self._lines else ""
        return "|" in above and bool(_TABLE_RULE.fullmatch(line)) and len(_cells(above)) == len(_cells(line))

    def _row(self, line: str) -> Iterator[Block]:
        if "|" in line:
            cells = _cells(line)
            yield Block("lines", self._rows.row(cells + [""] * (self._num_columns - len(cells))))
        else:
            yield from self._flush()
            yield from self._line(line)

    def _add(self, line: str) -> None:
        self._lines.append(line)
        self._size += len(line)

    def _is_list(self) -> bool:
        return any(_ITEM.match(line) for line in self._lines) or self._lines[0].lstrip().startswith(">")

    def _flush(self, kind: str = "") -> Iterator[Block]:
        """What is pending, as a block. An unclosed fence ends with the document."""
        yield from (Block("lines", text) for text in self._rows.end())
        lines, self._lines, self._size, self._num_columns = self._lines, [], 0, 0
        if lines:
            indented = all(line.startswith(("    ", "\t")) for line in lines)
            own = kind or self._fence or indented or any(_ITEM.match(line) for line in lines)
            yield Block("lines" if own else "paragraph", "\n".join(lines))


def _cells(line: str) -> list[str]:
    inner = line.strip().removeprefix("|")
    inner = inner[:-1] if inner.endswith("|") and not inner.endswith("\\|") else inner
    return [cell.strip().replace("\\|", "|") for cell in _CELL_END.split(inner)]
