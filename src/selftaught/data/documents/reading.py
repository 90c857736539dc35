"""A folder of documents, read into a store: each content once, and nothing passed over in silence."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from selftaught import files
from selftaught.data.documents.blocks import Block, Contents, PasswordNeeded, cleaned
from selftaught.data.documents.cut import cut
from selftaught.data.documents.plain import paragraphs
from selftaught.data.documents.readers import FORMATS, format_of, read_blocks
from selftaught.data.documents.store import READ, VERSION, Reading, Store
from selftaught.data.documents.types import DocumentRecord, Progress, Status, Watch
from selftaught.data.documents.walk import Found, is_there, walk
from selftaught.errors import ConfigError, DataError

MAX_WORDS = 300
MAX_LISTED = 20  # page ranges in a note
EMPTY = hashlib.sha256().hexdigest()
NO_TEXT = "holds no text"


def read_documents(
    path: Path,
    store: Path,
    *,
    max_words: int = MAX_WORDS,
    leave_out: Path | None = None,
    watch: Watch = lambda progress: None,
) -> list[DocumentRecord]:
    """Reads a file, or all files of a folder, into pieces that a store keeps.

    A content that the store has is not read again: a reading that was ended goes on where it was, and a later one reads
    what is new. `load_records` before and `changes` after tell what that was. One store is for one folder.

    Args:
        path: a file or a folder, with all folders in it. Hidden files, and the store, are left out.
        store: the folder that keeps the pieces; made if missing.
        max_words: the most words in a piece.
        leave_out: a folder that holds the store and is not read either; None leaves out the store alone.
        watch: told how far the reading is, before each file, at each page of a PDF, and at the end.

    Returns:
        A record for each file, in sorted order, whatever became of it.

    Raises:
        DataError: there is no such file or folder, or nothing in it could be read.
        ConfigError: no piece can have so few words.
        ArtifactError: the store cannot be written, or another process is at work in it.
    """
    if max_words < 1:
        raise ConfigError(f"max_words is {max_words}; give a piece at least one word")
    if not is_there(path):
        raise DataError(f"{path}: no such file or folder; check the path")
    with files.locked(store, "wait until it is done"):
        session = _Session(Store(store), max_words, watch)
        session.read(list(walk(path, leave_out or store)))
        if not any(record.status in READ for record in session.records):
            raise DataError(f"{path}: {_nothing(path, session.records)}")
        session.store.write_records(session.records)
    return session.records


def cut_text(text: str, max_words: int = MAX_WORDS) -> list[str]:
    """A text in pieces, cut as the documents are."""
    blocks = (clean for block in paragraphs(text.splitlines()) if (clean := cleaned(block)) is not None)
    return [piece.text for piece in cut(blocks, max_words)]


def _nothing(path: Path, records: list[DocumentRecord]) -> str:
    """Why a file or a folder gave nothing, in one line."""
    if not path.is_dir():
        return records[0].note
    if not records:
        return f"holds no documents; put some there ({', '.join(FORMATS)})"
    counts = Counter(record.status for record in records)
    listed = ", ".join(f"{count} {status}" for status, count in counts.items())
    telling = next((record for record in records if record.status != "unsupported"), records[0])
    return f"none of its files can be read ({listed}); first {telling.path}: {telling.note}"


class _Session:
    """One reading: the files done so far, and the first document of each content and each text."""

    def __init__(self, store: Store, max_words: int, watch: Watch) -> None:
        self.store = store
        self.records: list[DocumentRecord] = []
        self._max_words = max_words
        self._watch = watch
        self._first_content: dict[str, str] = {}
        self._first_text: dict[str, str] = {}

    def read(self, found: list[Found]) -> None:
        """Reads files; a record for each."""
        self.store.clear_drafts()
        for number, file in enumerate(found):
            progress = Progress(number, len(found), file.name)
            self._watch(progress)
            self.records.append(self._record(file, progress))
        self._watch(Progress(len(found), len(found), ""))

    def _record(self, file: Found, progress: Progress) -> DocumentRecord:
        """What becomes of one file."""
        format = format_of(file.path)
        if file.status:
            return _without_text(file, format, file.status, "", file.note)
        if not format:
            suffix = file.path.suffix or "no suffix"
            note = f"{suffix}, which is none of {', '.join(FORMATS)}; save it as one of them"
            return _without_text(file, format, "unsupported", "", note)
        digest = ""
        try:
            digest = _digest(file.path)
            return self._of_content(file, format, digest, progress)
        except PasswordNeeded as error:
            return _without_text(file, format, "password", digest, str(error))
        except DataError as error:
            return _without_text(file, format, "unreadable", digest, str(error))

    def _of_content(self, file: Found, format: str, digest: str, progress: Progress) -> DocumentRecord:
        """The record of a file whose content has this hash."""
        if digest == EMPTY:
            return _without_text(file, format, "empty", digest, NO_TEXT)
        if digest in self._first_content:
            return _without_text(file, format, "duplicate", digest, f"same content as {self._first_content[digest]}")
        reading = self.store.reading(digest)
        if reading is None or (reading.version, reading.format, reading.max_words) != self._settings(format):
            reading = self._reading(file.path, format, digest, progress)
        return self._first_or_duplicate(file, digest, reading)

    def _settings(self, format: str) -> tuple[int, str, int]:
        return VERSION, format, self._max_words

    def _first_or_duplicate(self, file: Found, digest: str, reading: Reading) -> DocumentRecord:
        if reading.num_pieces:
            first = self._first_text.setdefault(reading.text_digest, file.name)
            if first != file.name:
                note = f"same text as {first}"
                return _without_text(file, reading.format, "duplicate", digest, note, reading.pages)
            self._first_content[digest] = file.name
        return DocumentRecord(
            path=file.name,
            format=reading.format,
            status=reading.status,
            digest=digest,
            pages=reading.pages,
            num_pieces=reading.num_pieces,
            num_words=reading.num_words,
            note=reading.note,
        )

    def _reading(self, path: Path, format: str, digest: str, progress: Progress) -> Reading:
        """Reads a file and keeps its pieces.

        Raises:
            DataError: it cannot be read, or changed meanwhile.
        """
        contents = Contents()
        with closing(read_blocks(path, format, contents)) as blocks:
            sums = self.store.write_pieces(digest, cut(self._watched(blocks, contents, progress), self._max_words))
        if _digest(path) != digest:
            raise DataError("changed while it was read; read the documents again")
        reading = Reading(
            version=VERSION,
            format=format,
            max_words=self._max_words,
            status=_status(sums.num_pieces, contents),
            title=contents.title,
            pages=contents.num_pages,
            num_pieces=sums.num_pieces,
            num_words=sums.num_words,
            note=_note(sums.num_pieces, contents),
            text_digest=sums.text_digest,
            pieces_digest=sums.pieces_digest,
        )
        self.store.write_reading(digest, reading)
        return reading

    def _watched(self, blocks: Iterable[Block], contents: Contents, progress: Progress) -> Iterator[Block]:
        for block in blocks:
            if block.kind == "page":
                self._watch(Progress(progress.done, progress.total, progress.name, block.page, contents.num_pages))
            yield block


def _digest(path: Path) -> str:
    try:
        return files.sha256_of(path)
    except OSError as error:
        raise DataError(f"cannot be opened ({error.strerror or error}); check your rights to it") from error


def _without_text(
    file: Found, format: str, status: Status, digest: str, note: str, pages: int | None = None
) -> DocumentRecord:
    return DocumentRecord(file.name, format, status, digest, pages, 0, 0, note)


def _status(num_pieces: int, contents: Contents) -> Status:
    if not num_pieces:
        return "empty"
    return "partly" if contents.blank_pages or contents.failed_pages else "read"


def _note(num_pieces: int, contents: Contents) -> str:
    """What a person should know, in one line."""
    parts = [] if num_pieces or contents.blank_pages else [NO_TEXT]
    if contents.blank_pages:
        parts.append(f"no text on {_ranges(contents.blank_pages)} (empty, or scanned: run OCR)")
    if contents.failed_pages:
        parts.append(f"{_ranges(contents.failed_pages)} unreadable")
    return "; ".join([*parts, *contents.remarks])


def _ranges(pages: list[int]) -> str:
    """Page numbers, those in a row as one: "pages 3, 7–9"."""
    rows: list[list[int]] = []
    for page in pages:
        if rows and rows[-1][-1] == page - 1:
            rows[-1].append(page)
        else:
            rows.append([page])
    texts = [str(row[0]) if len(row) == 1 else f"{row[0]}–{row[-1]}" for row in rows]
    listed = ", ".join(texts[:MAX_LISTED]) + (f" and {len(texts) - MAX_LISTED} more" if len(texts) > MAX_LISTED else "")
    return f"page{'s' if len(pages) > 1 else ''} {listed}"
