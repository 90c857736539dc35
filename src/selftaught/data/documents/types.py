"""What reading a folder of documents comes to: pieces of text, one record a document, and progress on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Status = Literal["read", "partly", "empty", "duplicate", "password", "unreadable", "unsupported"]
Change = Literal["new", "changed", "unchanged", "removed"]


@dataclass(frozen=True)
class Piece:
    """A part of a document that is short enough to be shown to a model.

    Attributes:
        id: unique within a store: the document's hash, shortened, and the piece's number.
        document: the document's path, as in its record.
        title: the document's own title, or its file's name where it has none.
        section: the headings above the piece, outermost first.
        page: where it begins, from 1; None where the format has no pages.
        text: headings included.
    """

    id: str
    document: str
    title: str
    section: tuple[str, ...]
    page: int | None
    text: str


@dataclass(frozen=True)
class DocumentRecord:
    """What became of one file.

    Attributes:
        path: below the folder that was read, with "/" on every system; of a file read by itself, its name.
        format: "text", "markdown", "html", "pdf", "word" or "table"; empty if unsupported.
        status: "read"; "partly" (some pages gave no text); "empty"; "duplicate" (of a document before it);
            "password"; "unreadable"; "unsupported" (we have no reader for its suffix).
        digest: SHA-256 of the file's content; empty if it was never opened.
        pages: how many it has; None where the format has none.
        num_pieces: how many pieces it was cut into; 0 for a duplicate, whose pieces are the first one's.
        num_words: in them.
        note: what a person should know: pages without text, the reason, the first of two duplicates. May be empty.
    """

    path: str
    format: str
    status: Status
    digest: str
    pages: int | None
    num_pieces: int
    num_words: int
    note: str


@dataclass(frozen=True)
class Progress:
    """How far a reading is.

    Attributes:
        done: files done.
        total: of how many.
        name: the path of the file at work; empty at the end.
        page: of that file, the page at work; None where it has no pages.
        num_pages: of how many.
    """

    done: int
    total: int
    name: str
    page: int | None = None
    num_pages: int | None = None


Watch = Callable[[Progress], None]
