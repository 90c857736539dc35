"""HTML: what a reader of the page would see. Scripts and styles are left out, menus and footers are not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from selftaught.data.documents.blocks import Block, Contents, Kind
from selftaught.data.documents.decode import open_text
from selftaught.data.documents.table import Rows
from selftaught.errors import DataError

if TYPE_CHECKING:
    from bs4 import Tag

MAX_BYTES = 1 << 26  # a page's tree takes some thirty times as much memory

_CHARSET = re.compile(rb"<meta\b[^>]*?\bcharset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
# Not "head": it needs no end tag, and without one the whole page lies in it.
_UNSEEN = frozenset(["title", "script", "style", "template", "noscript", "iframe", "object"])
_INLINE_NAMES = (
    "a abbr acronym b bdi bdo big button cite code data del dfn em font i img input ins kbd label mark nobr picture q "
    "ruby s samp small source span strike strong sub sup svg time tt u var wbr"
)
_INLINE = frozenset(_INLINE_NAMES.split())
_HEADINGS = {f"h{level}": level for level in range(1, 7)}


def read_html(path: Path, contents: Contents) -> Iterator[Block]:
    """Headings, paragraphs, lists, preformatted lines, and tables row by row."""
    from bs4 import BeautifulSoup

    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"larger than {MAX_BYTES >> 20} MiB, too large for one page; divide it")
    with open_text(path, contents, declared=_declared(path)) as file:
        soup = BeautifulSoup(file.read(), "html.parser")  # lxml's drops what is nested deeply
    title = soup.find("title")
    contents.title = " ".join(title.get_text().split()) or None if title else None
    page = _Page()
    for event, value in _events(soup):
        for block in page.blocks(event, value):
            if block.kind == "heading" and contents.title is None:
                contents.title = " ".join(block.text.split()) or None
            yield block
    yield from page.flush()


def _declared(path: Path) -> str | None:
    with path.open("rb") as file:
        match = _CHARSET.search(file.read(4096))
    name = match[1].decode("ascii").lower() if match else None
    return "cp1252" if name in ("iso-8859-1", "latin-1", "latin1", "us-ascii", "ascii") else name  # as browsers do


def _events(root: Tag) -> Iterator[tuple[Literal["open", "close", "text"], str]]:
    """A tree's tags and texts in order, without recursion: pages may be nested thousands deep."""
    from bs4 import Tag
    from bs4.element import PreformattedString

    stack = [(root.name, iter(root.contents))]
    while stack:
        name, children = stack[-1]
        child = next(children, None)
        if child is None:
            stack.pop()
            yield "close", name
        elif isinstance(child, Tag):
            if child.name not in _UNSEEN:
                yield "open", child.name
                stack.append((child.name, iter(child.contents)))
        elif not isinstance(child, PreformattedString):  # comments, declarations and their like
            yield "text", str(child)


class _Page:
    """What is open: the text of a block, lists, and the cells of a row. What opens ends what it cannot be in."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._kind: Kind = "paragraph"
        self._level = 0
        self._num_pre = 0
        self._lists: list[int | None] = []  # of each open list, the items so far, if they are numbered
        self._mark = ""  # of the item that is open
        self._rows = Rows()
        self._cells: list[tuple[str, str]] | None = None  # a row's tags and texts; None outside of rows

    def blocks(self, event: str, value: str) -> Iterator[Block]:
        """Takes in one event; yields what it ends."""
        if event == "text":
            self._text.append(value if self._num_pre else re.sub(r"\s+", " ", value))
        elif value == "br":
            self._text.append("\n" if event == "open" else "")
        elif value in ("td", "th"):
            yield from self._cell(event == "open", value)
        elif value in ("tr", "table", "caption", "thead", "tbody", "tfoot"):
            yield from self._end_row()
            yield from self.flush()
            yield from (Block("lines", text) for text in (self._rows.end() if value == "table" else ()))
        elif value not in _INLINE:
            yield from self._boundary(event == "open", value)

    def flush(self) -> Iterator[Block]:
        """What text is open, as a block."""
        text, self._text = "".join(self._text), []
        mark, self._mark = self._mark, ""
        if text.strip():
            yield Block("lines" if self._num_pre else self._kind, mark + text, self._level)

    def _boundary(self, opens: bool, name: str) -> Iterator[Block]:
        if self._cells is not None:
            if not (opens and name in _HEADINGS):
                self._text.append(" ")  # a table's cell is one text,
                return
            yield from self._end_row()  # but no cell of data has headings: this table is there for the layout
        if self._mark and opens and not "".join(self._text).strip() and name in ("p", "div"):
            return
        yield from self.flush()
        if name == "pre":
            self._num_pre = max(self._num_pre + (1 if opens else -1), 0)
        elif name in ("ol", "ul"):
            self._lists = [*self._lists, 0 if name == "ol" else None] if opens else self._lists[:-1]
        self._level = _HEADINGS.get(name, 0) if opens else 0
        self._kind = "item" if opens and name in ("li", "dd", "dt") else "heading" if self._level else "paragraph"
        if opens and name == "li":
            self._mark = self._next_mark()

    def _next_mark(self) -> str:
        count = self._lists[-1] if self._lists else None
        if count is None:
            return "- "
        self._lists[-1] = count + 1
        return f"{count + 1}. "

    def _cell(self, opens: bool, name: str) -> Iterator[Block]:
        self._end_cell()
        if self._cells is None:  # a row begins, or a cell that was laid out ends
            yield from self.flush()
            self._cells = [] if opens else None
        if opens and self._cells is not None:
            self._cells.append((name, ""))

    def _end_cell(self) -> None:
        if self._cells:
            name, text = self._cells[-1]
            self._cells[-1] = (name, " ".join([*text.split(), *"".join(self._text).split()]))
            self._text = []

    def _end_row(self) -> Iterator[Block]:
        self._end_cell()
        cells, self._cells = self._cells or [], None
        names, texts = [name for name, _ in cells], [text for _, text in cells]
        if len(cells) > 1 and set(names) == {"th"}:
            yield from (Block("lines", text) for text in self._rows.head(texts))
        elif names == ["th", "td"] and not self._rows.has_header and all(texts):
            yield Block("lines", ": ".join(texts))
        elif any(texts):
            yield Block("lines", self._rows.row(texts))
