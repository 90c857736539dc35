"""Word documents (.docx), by python-docx.

Its own paragraphs and tables leave out what stands in text boxes, footnotes, content controls and tracked insertions,
so the document's XML is walked here. Headers, footers, comments and deleted text are not read.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftaught.data.documents.blocks import Block, Contents, Kind, PasswordNeeded, one_line
from selftaught.data.documents.table import Rows
from selftaught.errors import DataError

if TYPE_CHECKING:
    from docx.document import Document

MAX_UNPACKED = 1 << 30  # bytes; a small file can unpack to more than the memory holds

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # how old Word files begin, and encrypted new ones
_ZIP = b"PK"  # how new ones do
_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_TEXTS = (f"{_W}t", "{http://schemas.openxmlformats.org/officeDocument/2006/math}t")
_UNSEEN = (
    f"{_W}del",
    f"{_W}moveFrom",
    f"{_W}rt",
    "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback",
)
_SIGNS = {f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "-"}
_NOTES = {f"{_W}footnoteReference": "^", f"{_W}endnoteReference": "^e"}
_BOX = f"{_W}txbxContent"
_FEW_WORDS = 6  # in each cell of a row that looks like a header


def read_word(path: Path, contents: Contents) -> Iterator[Block]:
    """Headings, paragraphs, lists and tables of the body, then the notes."""
    document = _opened(path)
    styles = _styles(document)
    contents.title = " ".join((document.core_properties.title or "").split()) or None
    for block in _blocks(document.element.body, styles):
        if block.kind == "heading" and contents.title is None:
            contents.title = " ".join(block.text.split()) or None
        yield block
    for kind, sign in (("footnotes", "^"), ("endnotes", "^e")):
        yield from _notes(document, kind, sign, styles)


def _opened(path: Path) -> Document:
    import docx

    _check(path)
    try:
        return docx.Document(str(path))
    except Exception as error:  # of zipfile, lxml and python-docx
        raise DataError(f"not readable as a Word document ({one_line(error)}); save it again") from error


def _check(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(len(_OLE))
    if start == _OLE:
        if "EncryptedPackage".encode("utf-16-le") in path.read_bytes():
            raise PasswordNeeded("opens only with a password; save a copy without one")
        raise DataError("an old Word document (.doc) under a new name; save it as .docx")
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except zipfile.BadZipFile as error:
        if not start.startswith(_ZIP):
            raise DataError(
                "no Word document, whatever it is called; rename it as what it is, or save it as .docx"
            ) from error
        raise DataError("a Word document that is cut off or damaged; copy it again, or save it again") from error
    if size > MAX_UNPACKED:
        raise DataError(f"unpacks to more than {MAX_UNPACKED >> 30} GiB; divide it")


@dataclass(frozen=True)
class _Styles:
    """What the styles say: of those that make headings the level, and which make items of a list."""

    levels: dict[str, int]
    lists: frozenset[str]


def _styles(document: Document) -> _Styles:
    """Styles by their own name, outline level and numbering, or those of the style they are based on."""
    based_on: dict[str, str] = {}
    levels: dict[str, int] = {}
    lists: set[str] = set()
    for style in document.styles.element.iterfind(f"{_W}style"):
        key = style.get(f"{_W}styleId", "")
        based_on[key] = _value(style, "basedOn")
        name = _value(style, "name").lower()
        level = _outline_level(style)
        if name == "title":
            levels[key] = 1
        elif name.startswith("heading ") and name[8:].isdecimal():
            levels[key] = int(name[8:])
        elif level:
            levels[key] = level
        elif style.find(f"{_W}pPr/{_W}numPr") is not None:
            lists.add(key)
    for key in based_on:
        ancestor = key
        for _ in based_on:  # no more steps than styles, even if they are based on each other in a ring
            if ancestor in levels:
                levels[key] = levels[ancestor]
            elif ancestor in lists:
                lists.add(key)
            else:
                ancestor = based_on.get(ancestor, "")
                continue
            break
    return _Styles(levels, frozenset(lists))


def _outline_level(element: Any) -> int:
    """The outline level that a style or a paragraph sets, from 1; 0 if it sets none."""
    value = _value(element, f"pPr/{_W}outlineLvl")
    return int(value) + 1 if value.isdecimal() and int(value) < 9 else 0


def _value(element: Any, path: str) -> str:
    found = element.find(_W + path)
    return str(found.get(f"{_W}val", "")) if found is not None else ""


def _blocks(parent: Any, styles: _Styles) -> Iterator[Block]:
    """The blocks within an element, at whatever depth content controls and their like put them."""
    for child in parent:
        if child.tag == f"{_W}p":
            yield from _paragraph(child, styles)
        elif child.tag == f"{_W}tbl":
            yield from _table(child, styles)
        elif child.tag not in _UNSEEN:
            yield from _blocks(child, styles)


def _paragraph(paragraph: Any, styles: _Styles) -> Iterator[Block]:
    """A paragraph, and after it the text boxes that are anchored in it."""
    text = _text(paragraph)
    style = _value(paragraph, f"pPr/{_W}pStyle")
    level = _outline_level(paragraph) or styles.levels.get(style, 0)
    if text.strip():
        is_item = style in styles.lists or paragraph.find(f"{_W}pPr/{_W}numPr") is not None
        kind: Kind = "heading" if level else "item" if is_item else "paragraph"
        yield Block(kind, f"- {text}" if kind == "item" else text, level)
    for box in _boxes(paragraph):
        yield from _blocks(box, styles)


def _text(element: Any) -> str:
    """The text of a paragraph without that of its text boxes."""
    parts: list[str] = []
    for child in element:
        if child.tag in _TEXTS:
            parts.append(child.text or "")
        elif child.tag in _SIGNS:
            parts.append(_SIGNS[child.tag])
        elif child.tag in _NOTES:
            parts.append(f"[{_NOTES[child.tag]}{child.get(f'{_W}id')}]")
        elif child.tag not in (*_UNSEEN, _BOX, f"{_W}pPr"):
            parts.append(_text(child))
    return "".join(parts)


def _boxes(element: Any) -> Iterator[Any]:
    for child in element:
        if child.tag == _BOX:
            yield child
        elif child.tag not in _UNSEEN:
            yield from _boxes(child)


# -------------------------------------------------------------------------------------------- tables


def _table(table: Any, styles: _Styles) -> Iterator[Block]:
    """A table row by row; one of a single cell is a frame around what is in it."""
    rows = [list(_children(row, "tc")) for row in _children(table, "tr")]
    if len(rows) == 1 and len(rows[0]) == 1:
        yield from _blocks(rows[0][0], styles)
        return
    texts = [[_cell_text(cell) for cell in cells] for cells in rows]
    named = Rows()
    if len(texts) > 1 and _is_header(table, texts[0]):
        list(named.head(texts.pop(0)))
    for row in texts:
        yield Block("lines", named.row(row))
    yield from (Block("lines", text) for text in named.end())


def _children(parent: Any, tag: str) -> Iterator[Any]:
    """Rows or cells, also those within content controls or tracked insertions; not those of tables within."""
    for child in parent:
        if child.tag == _W + tag:
            yield child
        elif child.tag not in (*_UNSEEN, f"{_W}tbl", f"{_W}tc", f"{_W}tr"):
            yield from _children(child, tag)


def _cell_text(cell: Any) -> str:
    return " ".join(" ".join(block.text for block in _blocks(cell, _Styles({}, frozenset()))).split())


def _is_header(table: Any, first: list[str]) -> bool:
    """Whether a first row names the columns: it says so, it alone is bold, or it is three short names or more."""
    row, second = list(_children(table, "tr"))[:2]
    if row.find(f"{_W}trPr/{_W}tblHeader") is not None or (_is_bold(row) and not _is_bold(second)):
        return True
    names = all(text and len(text.split()) <= _FEW_WORDS and not text[0].isdecimal() for text in first)
    return len(first) > 2 and names and len(set(first)) == len(first)


def _is_bold(row: Any) -> bool:
    runs = [run for run in row.iter(f"{_W}r") if _text(run).strip()]
    return bool(runs) and all(run.find(f"{_W}rPr/{_W}b") is not None for run in runs)


# --------------------------------------------------------------------------------------------- notes


def _notes(document: Document, kind: str, sign: str, styles: _Styles) -> Iterator[Block]:
    """Footnotes or endnotes, each with the sign by which the text refers to it."""
    from docx.oxml import parse_xml

    for relation in document.part.rels.values():
        if relation.is_external or not relation.reltype.endswith(f"/{kind}"):
            continue
        notes: Any = parse_xml(relation.target_part.blob)
        for note in notes:
            text = " ".join(block.text for block in _blocks(note, styles))
            if text.strip() and note.get(f"{_W}type") is None:
                yield Block("item", f"[{sign}{note.get(f'{_W}id')}] {text}")
