"""PDF, page by page, by pypdf. A page that is a picture has no text; its number is noted.

The outline's headings are looked for on their pages; those that are not found there begin a section all the same.
Lines are joined into paragraphs by their lengths, and paragraphs over the ends of pages. Repeats of headers and footers
are left out.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from selftaught.data.documents.blocks import MAX_BLOCK, Block, Contents, PasswordNeeded, one_line
from selftaught.data.documents.running import Page, without_running_lines
from selftaught.errors import DataError

if TYPE_CHECKING:
    from pypdf import PdfReader

KEPT_PAGES = 10  # after so many, the objects that pypdf has read are let go
MAX_HEADINGS = 10_000
HEADER_WITHIN = 1024  # bytes, as readers have always been lenient

Heading = tuple[int, str]  # level, title

_LIGATURES = {0xFB00: "ff", 0xFB01: "fi", 0xFB02: "fl", 0xFB03: "ffi", 0xFB04: "ffl", 0xFB05: "st", 0xFB06: "st"}
_LIST_ITEM = re.compile(r"[•▪◦‣–-]\s|\(?\d{1,3}[.)]\s")
_ENDS_SENTENCE = re.compile(r"[.!?:;。！？][\"'”’»)\]]*$")
_NO_TITLE = re.compile(
    r"untitled|\(?(?:anonymous|unspecified)\)?|.*\.(?:docx?|pdf|indd|tex|dvi|pptx?|xlsx?)|microsoft word.*",
    re.IGNORECASE,
)


def read_pdf(path: Path, contents: Contents) -> Iterator[Block]:
    """Pages, and on them the headings that the outline names, and paragraphs."""
    with path.open("rb") as file:
        reader = _opened(file, contents)
        contents.num_pages = len(reader.pages)
        contents.title = _title(reader)
        headings = _headings(reader)
        paragraphs = _Paragraphs()
        for page in without_running_lines(_pages(reader, contents), contents):
            yield Block("page", page=page.number)
            if not any(page.lines) and page.number not in contents.failed_pages:
                contents.blank_pages.append(page.number)
            yield from (Block("paragraph", head, page=page.number) for head in page.heads)
            for block in _blocks_of_page(page, headings.get(page.number, [])):
                yield from paragraphs.joined(block)
        yield from paragraphs.rest()
        if len(contents.failed_pages) == contents.num_pages:
            raise DataError(contents.remarks[0] if contents.remarks else "it has no pages; save it again")


def _opened(file: BinaryIO, contents: Contents) -> PdfReader:
    from pypdf import PdfReader

    try:
        with _warnings_to(contents):
            reader = PdfReader(file)
            if reader.is_encrypted and not reader.decrypt(""):
                raise PasswordNeeded("opens only with a password; save a copy without one")
            len(reader.pages)
    except DataError:
        raise
    except Exception as error:  # a damaged file makes pypdf raise nearly anything
        file.seek(0)
        if b"%PDF-" not in file.read(HEADER_WITHIN):
            raise DataError("no PDF, whatever it is called; rename it as what it is, or save it as PDF") from error
        raise DataError(f"not readable as PDF ({one_line(error)}); save it again") from error
    return reader


def _pages(reader: PdfReader, contents: Contents) -> Iterator[Page]:
    for number in range(1, len(reader.pages) + 1):
        text = _text_of_page(reader, number, contents)
        yield Page(number, [" ".join(line.split()) for line in text.split("\n")])
        if number % KEPT_PAGES == 0:
            reader.resolved_objects.clear()


def _text_of_page(reader: PdfReader, number: int, contents: Contents) -> str:
    """A page's text; none, with a remark, if it cannot be read."""
    try:
        with _warnings_to(contents):
            return reader.pages[number - 1].extract_text().translate(_LIGATURES)
    except Exception as error:
        contents.failed_pages.append(number)
        contents.remark(f"a page cannot be read ({one_line(error)}); save the file again")
        return ""


@contextmanager
def _warnings_to(contents: Contents) -> Iterator[None]:
    """The first of pypdf's warnings becomes a remark, and none goes to the terminal."""

    class Note(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not any(remark.startswith("pypdf: ") for remark in contents.remarks):
                contents.remark("pypdf: " + " ".join(record.getMessage().split())[:200])

    logger, handler = logging.getLogger("pypdf"), Note(logging.WARNING)
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


def _title(reader: PdfReader) -> str | None:
    """The title that the file gives itself, unless a program gave it."""
    try:
        title = " ".join(str((reader.metadata and reader.metadata.title) or "").split())
    except Exception:  # a damaged title costs the title only
        return None
    return title if title and not _NO_TITLE.fullmatch(title) else None


# ------------------------------------------------------------------------------------------- outline


def _headings(reader: PdfReader) -> dict[int, list[Heading]]:
    """The outline's titles by page number; none if it is damaged."""
    by_page: dict[int, list[Heading]] = {}
    try:
        with _warnings_to(Contents()):
            for count, (level, entry) in enumerate(_flat(reader.outline, 1)):
                page = reader.get_destination_page_number(entry)
                title = " ".join(str(entry.title).split())
                if count < MAX_HEADINGS and page is not None and page >= 0 and title:
                    by_page.setdefault(page + 1, []).append((level, title))
    except Exception:  # without an outline, the text is still there
        return {}
    return by_page


def _flat(outline: list[Any], level: int) -> Iterator[tuple[int, Any]]:
    for entry in outline:
        if isinstance(entry, list):
            yield from _flat(entry, level + 1)
        else:
            yield level, entry


def _blocks_of_page(page: Page, headings: list[Heading]) -> Iterator[Block]:
    """A page's paragraphs between those of its lines that are headings."""
    lines, number = page.lines, page.number
    words = set(re.findall(r"[\w-]+", " ".join(lines).lower()))
    start = 0
    for level, title in headings:
        first, last = _find(title, lines, start)
        if first == last:
            yield Block("section", title, level, number)
            continue
        yield from _paragraphs(lines[start:first], words, number)
        yield Block("heading", " ".join(lines[first:last]), level, number)
        start = last
    yield from _paragraphs(lines[start:], words, number)


def _find(title: str, lines: list[str], start: int) -> tuple[int, int]:
    """Where a title stands, on up to three lines, which may have a number before it; an empty range if nowhere."""
    wanted = _letters(title)
    for first in range(start, len(lines)):
        for last in range(first + 1, min(first + 3, len(lines)) + 1):
            found = _letters("".join(lines[first:last]))
            if found == wanted or (len(wanted) > 3 and found.endswith(wanted) and len(found) - len(wanted) <= 10):
                return first, last
    return start, start


def _letters(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


# ---------------------------------------------------------------------------------------- paragraphs


def _paragraphs(lines: list[str], words: set[str], page: int) -> Iterator[Block]:
    """Lines joined: a paragraph ends at a blank line, before an item of a list, and with a line that is short."""
    width = max(map(len, lines), default=0)
    held: list[str] = []
    for line, following in zip(lines, [*lines[1:], ""]):
        if line:
            held.append(line)
        goes_on = following[:1].islower() and not _ENDS_SENTENCE.search(line)
        is_last = not following or _LIST_ITEM.match(following) or (len(line) < 0.75 * width and not goes_on)
        if held and is_last:
            yield Block("paragraph", _joined(held, words), page=page)
            held = []


class _Paragraphs:
    """Holds a paragraph back at the end of a page, until it is known whether it goes on on the next."""

    def __init__(self) -> None:
        self._held: Block | None = None
        self._last_page = 0  # of what is held

    def joined(self, block: Block) -> Iterator[Block]:
        """Takes a block in; yields what is whole."""
        held, page = self._held, block.page or 0
        if held and block.kind == "paragraph" and page == self._last_page + 1 and block.text[:1].islower():
            words = set(re.findall(r"[\w-]+", f"{held.text} {block.text}".lower()))
            block, self._held = Block("paragraph", _joined([held.text, block.text], words), page=held.page), None
        yield from self.rest()
        if block.kind == "paragraph" and not _ENDS_SENTENCE.search(block.text) and len(block.text) < MAX_BLOCK:
            self._held, self._last_page = block, page
        else:
            yield block

    def rest(self) -> Iterator[Block]:
        """Yields what is held."""
        held, self._held = self._held, None
        if held:
            yield held


def _joined(lines: list[str], words: set[str]) -> str:
    """Lines as one, with the words whole that were divided at line ends."""
    text = lines[0]
    for line in lines[1:]:
        before, after = re.search(r"([^\W\d_]+)[-\u00ad\u2010]$", text), re.match(r"[^\W\d_]+", line)
        if before and after and after[0][0].islower():
            keep_hyphen = f"{before[1]}-{after[0]}".lower() in words and (before[1] + after[0]).lower() not in words
            text = (text if keep_hyphen else text[:-1]) + line
        else:
            text = f"{text} {line}"
    return text
