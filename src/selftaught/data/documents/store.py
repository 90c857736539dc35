"""What has been read, kept by the hash of the file that it was read from.

::

    <store>/
    ├── pieces/<sha256>.jsonl     a document's pieces, one a line
    ├── readings/<sha256>.json    what its reading came to; written last, so that it vouches for the pieces
    └── documents.json            the records of the last reading that was finished
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from selftaught import files
from selftaught.data.documents.cut import Cut
from selftaught.data.documents.types import Change, DocumentRecord, Piece, Status
from selftaught.errors import ArtifactError

VERSION = 1  # of what the readers make of a file; another one has everything read again
RECORDS = "documents.json"
READ: tuple[Status, ...] = ("read", "partly")


@dataclass(frozen=True)
class Reading:
    """What the content of a file came to, whatever the file is called.

    Attributes:
        version: of the readers.
        format: as which it was read.
        max_words: the most in a piece.
        status: "read", "partly" or "empty".
        title: its own.
        pages: how many it has, if any.
        num_pieces: in the file of pieces.
        num_words: in them.
        note: what a person should know.
        text_digest: of its words, to find the same text in another file.
        pieces_digest: of the file of pieces.
    """

    version: int
    format: str
    max_words: int
    status: Status
    title: str | None
    pages: int | None
    num_pieces: int
    num_words: int
    note: str
    text_digest: str
    pieces_digest: str


@dataclass
class Sums:
    """What is counted while the pieces are written."""

    num_pieces: int = 0
    num_words: int = 0
    text_digest: str = ""
    pieces_digest: str = ""


class Store:
    """The folder that keeps what was read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def pieces_file(self, digest: str) -> Path:
        """Where the pieces of a content are."""
        return self._folder / "pieces" / f"{digest}.jsonl"

    def reading_file(self, digest: str) -> Path:
        """Where it is written what they came to."""
        return self._folder / "readings" / f"{digest}.json"

    def reading(self, digest: str) -> Reading | None:
        """What a content came to; None if it has not been read, or what was kept is damaged."""
        try:
            reading = Reading(**files.read_json(self.reading_file(digest)))
            intact = files.sha256_of(self.pieces_file(digest)) == reading.pieces_digest
        except (ArtifactError, OSError, TypeError):
            return None
        return reading if intact else None

    def write_pieces(self, digest: str, cuts: Iterable[Cut]) -> Sums:
        """Writes the pieces of a content as they come, whole or not at all.

        Returns:
            What they sum to.

        Raises:
            ArtifactError: they cannot be written.
        """
        sums = Sums()
        text_hash, lines_hash = hashlib.sha256(), hashlib.sha256()

        def lines() -> Iterator[str]:
            for sums.num_pieces, piece in enumerate(cuts, start=1):
                row = {"id": f"{digest[:16]}-{sums.num_pieces}", "section": piece.section, "page": piece.page}
                line = json.dumps({**row, "text": piece.text}, ensure_ascii=False) + "\n"
                lines_hash.update(line.encode())
                text_hash.update(_normalised(piece.text))
                sums.num_words += piece.num_words
                yield line

        files.write_lines(self.pieces_file(digest), lines())
        sums.text_digest, sums.pieces_digest = text_hash.hexdigest(), lines_hash.hexdigest()
        return sums

    def write_reading(self, digest: str, reading: Reading) -> None:
        """Vouches for the pieces that were written."""
        files.write_json(self.reading_file(digest), asdict(reading))

    def write_records(self, records: Sequence[DocumentRecord]) -> None:
        """Keeps the records of a reading that was finished."""
        files.write_json(self._folder / RECORDS, [asdict(record) for record in records])

    def clear_drafts(self) -> None:
        """Removes what a process left that was killed while it wrote; only for who has the lock."""
        for draft in [*self._folder.glob(".*.tmp"), *self._folder.glob("*/.*.tmp")]:
            draft.unlink(missing_ok=True)


def _normalised(text: str) -> bytes:
    """A text's characters without white space, small letters, in one spelling: however it is cut, the sum is one."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split()).encode()


def load_records(store: Path) -> list[DocumentRecord]:
    """The records of the last reading that was finished; none before the first.

    Args:
        store: the store's folder.

    Returns:
        The records, by path.

    Raises:
        ArtifactError: they are damaged.
    """
    path = store / RECORDS
    if not path.exists():
        return []
    try:
        return [DocumentRecord(**row) for row in files.read_json(path)]
    except TypeError as error:
        raise ArtifactError(f"{path}: is damaged ({error}); delete it and read the documents again") from error


def pieces_of(store: Path, records: Iterable[DocumentRecord]) -> Iterator[Piece]:
    """The pieces of documents, one after the other, no more than one in memory.

    Args:
        store: the store's folder.
        records: of the documents; those that gave no text, and duplicates, have no pieces.

    Yields:
        The pieces, in the order of the records and of the text.

    Raises:
        ArtifactError: pieces are missing or damaged.
    """
    shelf = Store(store)
    for record in records:
        if record.status not in READ:
            continue
        path = shelf.pieces_file(record.digest)
        reading = shelf.reading(record.digest)
        if reading is None:
            raise ArtifactError(f"{path}: missing or damaged; read the documents again (this one is {record.path})")
        title = reading.title or PurePosixPath(record.path).stem
        with path.open(encoding="utf-8", newline="\n") as file:
            for line in file:
                row = json.loads(line)
                yield Piece(row["id"], record.path, title, tuple(row["section"]), row["page"], row["text"])


def changes(before: Iterable[DocumentRecord], after: Iterable[DocumentRecord]) -> dict[str, Change]:
    """What became of each document between two readings, by the hash of its content.

    Args:
        before: the earlier records.
        after: the later ones.

    Returns:
        By path: "new", "changed", "unchanged" or "removed"; the removed ones at the end.
    """
    old = {record.path: record.digest for record in before}
    now = {record.path: record.digest for record in after}
    found: dict[str, Change] = {
        path: "new" if path not in old else "unchanged" if old[path] == digest else "changed"
        for path, digest in now.items()
    }
    return {**found, **{path: "removed" for path in old if path not in now}}
