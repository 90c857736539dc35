"""A folder read into a store: what becomes of each file, what is read again, and what is left after a kill."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import docx
import pytest
from made_documents import write_locked_pdf, write_pdf

from selftaught.data.documents import (
    DocumentRecord,
    Piece,
    Progress,
    changes,
    load_records,
    pieces_of,
    read_documents,
    reading,
    store,
)
from selftaught.data.documents.blocks import Block, Contents
from selftaught.data.documents.readers import read_blocks
from selftaught.errors import ArtifactError, ConfigError, DataError
from selftaught.files import locked, sha256_of

SUFFIXES = ".txt, .md, .markdown, .html, .htm, .pdf, .docx, .csv, .tsv"


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the disk has kept after a power cut is not what is tested here."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


class Killed(BaseException):
    """The end of a process, of our making."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "documents"
    path.mkdir()
    return path


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    return tmp_path / "store"


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def statuses(records: list[DocumentRecord]) -> dict[str, str]:
    return {record.path: record.status for record in records}


def files_in(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != ".lock"
    )


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that a reader has been at."""
    names: list[str] = []

    def noted(path: Path, format: str, contents: Contents) -> Generator[Block, None, None]:
        names.append(path.name)
        return read_blocks(path, format, contents)

    monkeypatch.setattr(reading, "read_blocks", noted)
    return names


# --------------------------------------------------------------------------------- records and pieces


def test_each_file_has_a_record_whatever_became_of_it(folder: Path, shelf: Path) -> None:
    write(folder, "a.md", "# Shop\n\nWe sell lamps.\n\n## Returns\n\nWithin 45 days.")
    write_pdf(folder / "b.pdf", [["One."], None, None, ["Four words are here."], None])
    write_locked_pdf(folder / "c.pdf", [["secret"]], "sesame")
    write_pdf(folder / "d.pdf", [None, None])
    write(folder, "e.pdf", b"%PDF-1.7\n no")
    write(folder, "f.txt", b"")
    write(folder, "g.txt", " \n\n")
    write(folder, "h.exe", b"MZ")
    write(folder, "i", "no suffix")
    write(folder, "k.docx", b"")
    write(folder, "sub/l.txt", "caf\xe9".encode("latin-1"))
    records = read_documents(folder, shelf)
    assert [(record.path, record.format, record.status, record.pages, record.note) for record in records] == [
        ("a.md", "markdown", "read", None, ""),
        ("b.pdf", "pdf", "partly", 5, "no text on pages 2–3, 5 (empty, or scanned: run OCR)"),
        ("c.pdf", "pdf", "password", None, "opens only with a password; save a copy without one"),
        ("d.pdf", "pdf", "empty", 2, "no text on pages 1–2 (empty, or scanned: run OCR)"),
        ("e.pdf", "pdf", "unreadable", None, "not readable as PDF (Stream has ended unexpectedly); save it again"),
        ("f.txt", "text", "empty", None, "holds no text"),
        ("g.txt", "text", "empty", None, "holds no text"),
        ("h.exe", "", "unsupported", None, f".exe, which is none of {SUFFIXES}; save it as one of them"),
        ("i", "", "unsupported", None, f"no suffix, which is none of {SUFFIXES}; save it as one of them"),
        ("k.docx", "word", "empty", None, "holds no text"),
        ("sub/l.txt", "text", "read", None, "names no encoding; read as cp1252"),
    ]
    assert [record.digest for record in records] == [
        sha256_of(folder / record.path) if record.format else "" for record in records
    ]
    assert [(record.num_pieces, record.num_words) for record in records if record.num_pieces] == [
        (2, 8),
        (1, 5),
        (1, 1),
    ]
    assert load_records(shelf) == records


def test_pieces_know_their_document_title_section_and_page(folder: Path, shelf: Path) -> None:
    write(folder, "a.md", "# Shop\n\nWe sell lamps.\n\n## Returns\n\nWithin 45 days.")
    write_pdf(folder / "sub.pdf", [["One."], None, ["Three."]])
    records = read_documents(folder, shelf, max_words=4)
    one, two = (record.digest[:16] for record in records)
    assert list(pieces_of(shelf, records)) == [
        Piece(f"{one}-1", "a.md", "Shop", ("Shop",), None, "Shop\n\nWe sell lamps."),
        Piece(f"{one}-2", "a.md", "Shop", ("Shop", "Returns"), None, "Returns\n\nWithin 45 days."),
        Piece(f"{two}-1", "sub.pdf", "sub", (), 1, "One.\n\nThree."),
    ]
    assert list(pieces_of(shelf, records[1:])) == list(pieces_of(shelf, records))[2:]


def test_the_same_words_come_out_of_every_format(folder: Path, shelf: Path) -> None:
    """All that was written is there once, in order; the reference is what was written."""
    sentences = [f"Sentence number {number} says something about lamp {number * 7}." for number in range(40)]
    write(folder, "a.txt", "\n\n".join(sentences))
    write(folder, "b.md", "\n\n".join([*sentences, "Markdown."]))
    write(folder, "c.html", "".join(f"<p>{sentence}</p>" for sentence in [*sentences, "HTML."]))
    write_pdf(folder / "d.pdf", [sentences[:20], [*sentences[20:], "PDF."]])
    document = docx.Document()
    for sentence in [*sentences, "Word."]:
        document.add_paragraph(sentence)
    document.save(str(folder / "e.docx"))
    records = read_documents(folder, shelf, max_words=50)
    for record, ending in zip(records, ["", "Markdown.", "HTML.", "PDF.", "Word."], strict=True):
        text = " ".join(piece.text for piece in pieces_of(shelf, [record]))
        assert text.split() == " ".join([*sentences, ending]).split()
        assert record.num_words == len(text.split())


def test_a_single_file(folder: Path, shelf: Path) -> None:
    path = write(folder, "a.txt", "Alone.")
    [record] = read_documents(path, shelf)
    assert (record.path, record.status) == ("a.txt", "read")


# ---------------------------------------------------------------------------------------- duplicates


def test_duplicates_name_the_first_and_have_no_pieces(folder: Path, shelf: Path) -> None:
    write(folder, "a.txt", "We sell Lamps.\n\nWithin 45 days.")
    write(folder, "b.txt", "We sell Lamps.\n\nWithin 45 days.")
    write(folder, "c.html", "<p>WE SELL <b>lamps</b>.</p><p>within 45  days.</p>")
    write(folder, "d.txt", "We sell Lamps.\n\nWithin 4.5 days.")
    records = read_documents(folder, shelf)
    assert [(record.status, record.note) for record in records] == [
        ("read", ""),
        ("duplicate", "same content as a.txt"),
        ("duplicate", "same text as a.txt"),
        ("read", ""),
    ]
    assert [record.num_pieces for record in records] == [1, 0, 0, 1]
    assert {piece.document for piece in pieces_of(shelf, records)} == {"a.txt", "d.txt"}


def test_when_the_first_goes_the_duplicate_is_read(folder: Path, shelf: Path, opened: list[str]) -> None:
    write(folder, "a.txt", "We sell lamps.")
    write(folder, "b.html", "<p>We sell lamps.</p>")
    read_documents(folder, shelf)
    (folder / "a.txt").unlink()
    [record] = read_documents(folder, shelf)
    assert (record.path, record.status, record.num_pieces) == ("b.html", "read", 1)
    assert opened == ["a.txt", "b.html"]


def test_of_two_broken_files_neither_is_the_others_duplicate(folder: Path, shelf: Path) -> None:
    write(folder, "a.pdf", b"broken")
    write(folder, "b.pdf", b"broken")
    write(folder, "c.txt", "text")
    assert statuses(read_documents(folder, shelf)) == {"a.pdf": "unreadable", "b.pdf": "unreadable", "c.txt": "read"}


# ------------------------------------------------------------------------------- again, and after a kill


def test_only_what_changed_is_read_again(folder: Path, shelf: Path, opened: list[str]) -> None:
    for name in ("a.txt", "b.txt", "c.txt", "d.txt"):
        write(folder, name, f"This is {name}.")
    before = read_documents(folder, shelf)
    assert changes([], before) == dict.fromkeys(["a.txt", "b.txt", "c.txt", "d.txt"], "new")
    opened.clear()
    write(folder, "b.txt", "This is another.")
    (folder / "c.txt").unlink()
    (folder / "d.txt").rename(folder / "e.txt")
    assert load_records(shelf) == before
    after = read_documents(folder, shelf)
    assert opened == ["b.txt"]
    assert changes(before, after) == {
        "a.txt": "unchanged",
        "b.txt": "changed",
        "e.txt": "new",
        "c.txt": "removed",
        "d.txt": "removed",
    }
    assert [(piece.document, piece.title, piece.text) for piece in pieces_of(shelf, after)] == [
        ("a.txt", "a", "This is a.txt."),
        ("b.txt", "b", "This is another."),
        ("e.txt", "e", "This is d.txt."),
    ]


@pytest.mark.parametrize("what", ["max_words", "version", "format", "damage", "loss"])
def test_what_would_come_out_otherwise_is_read_again(
    folder: Path, shelf: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    write(folder, "a.txt", "# One\n\ntwo three four")
    [record] = read_documents(folder, shelf)
    pieces = shelf / "pieces" / f"{record.digest}.jsonl"
    if what == "version":
        monkeypatch.setattr(reading, "VERSION", 99)
    if what == "format":
        (folder / "a.txt").rename(folder / "a.md")
    if what == "damage":
        pieces.write_text(pieces.read_text().replace("two", "too"))
    if what == "loss":
        pieces.unlink()
    [again] = read_documents(folder, shelf, max_words=3 if what == "max_words" else 300)
    assert len(opened) == 2
    assert again.num_pieces == (2 if what == "max_words" else 1)
    assert [piece.text for piece in pieces_of(shelf, [again])][-1].endswith("two three four"[-again.num_words :])


def test_after_a_kill_only_the_rest_is_read(folder: Path, shelf: Path, opened: list[str]) -> None:
    """1,000 files; the process dies at the 600th, and the second one has 401 left."""
    for number in range(1000):
        write(folder, f"{number // 100}/{number:04}.txt", f"Document {number} is about lamp {number}.")
    seen: list[Progress] = []

    def watch(progress: Progress) -> None:
        seen.append(progress)
        if progress.done == 599:
            raise Killed

    with pytest.raises(Killed):
        read_documents(folder, shelf, watch=watch)
    assert [progress.done for progress in seen] == list(range(600))
    assert seen[-1] == Progress(599, 1000, "5/0599.txt")
    assert len(opened) == len(list((shelf / "readings").iterdir())) == 599
    assert load_records(shelf) == []
    opened.clear()
    records = read_documents(folder, shelf, watch=seen.append)
    assert opened == [f"{number:04}.txt" for number in range(599, 1000)]
    assert [record.status for record in records] == ["read"] * 1000
    assert [piece.text for piece in pieces_of(shelf, records)] == [
        f"Document {number} is about lamp {number}." for number in range(1000)
    ]
    assert seen[-1] == Progress(1000, 1000, "")


def test_a_kill_within_a_document_leaves_nothing_of_it(folder: Path, shelf: Path) -> None:
    write_pdf(folder / "a.pdf", [[f"{'long ' * number}document."] for number in range(1, 31)])
    seen: list[Progress] = []

    def watch(progress: Progress) -> None:
        seen.append(progress)
        if progress.page == 20:
            raise Killed

    with pytest.raises(Killed):
        read_documents(folder, shelf, max_words=10, watch=watch)
    assert seen == [Progress(0, 1, "a.pdf"), *(Progress(0, 1, "a.pdf", page, 30) for page in range(1, 21))]
    assert files_in(shelf) == []
    [record] = read_documents(folder, shelf, max_words=10)
    assert (record.pages, record.num_words) == (30, 30 * 31 // 2 + 30)


def test_drafts_of_a_process_that_died_are_cleared_away(folder: Path, shelf: Path) -> None:
    write(folder, "a.txt", "text")
    for name in (".documents.json.x.tmp", "pieces/.0123.jsonl.y.tmp", "readings/.0123.json.z.tmp"):
        write(shelf, name, "half")
    [record] = read_documents(folder, shelf)
    assert files_in(shelf) == ["documents.json", f"pieces/{record.digest}.jsonl", f"readings/{record.digest}.json"]


def test_a_file_that_changes_while_it_is_read_is_not_taken_for_read(folder: Path, shelf: Path) -> None:
    path = write_pdf(folder / "a.pdf", [["one"], ["two"]])
    write(folder, "b.txt", "text")

    def watch(progress: Progress) -> None:
        if progress.page == 2:
            path.write_bytes(path.read_bytes() + b"\n% more")

    changed, other = read_documents(folder, shelf, watch=watch)
    assert (changed.status, changed.note) == ("unreadable", "changed while it was read; read the documents again")
    assert other.status == "read"
    assert statuses(read_documents(folder, shelf)) == {"a.pdf": "read", "b.txt": "read"}


def test_what_could_not_be_read_is_tried_again(folder: Path, shelf: Path, opened: list[str]) -> None:
    write(folder, "a.pdf", b"broken")
    write(folder, "b.txt", "text")
    read_documents(folder, shelf)
    read_documents(folder, shelf)
    assert opened == ["a.pdf", "b.txt", "a.pdf"]


# --------------------------------------------------------------------------------------- the walk


def test_sorted_without_what_is_hidden_and_without_the_store(folder: Path) -> None:
    for name in ("b.txt", "a/z.txt", "a/a.txt", ".hidden.txt", ".git/x.txt", "~$b.docx", "c.txt"):
        write(folder, name, f"This is {name}.")
    records = read_documents(folder, folder / "store")
    assert statuses(records) == dict.fromkeys(["a/a.txt", "a/z.txt", "b.txt", "c.txt"], "read")
    assert read_documents(folder, folder / "store") == records


def test_links_are_followed_once(folder: Path, shelf: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    write(elsewhere, "e.txt", "Elsewhere.")
    write(folder, "a/a.txt", "This is a.")
    (folder / "a" / "loop").symlink_to(folder)
    (folder / "b").symlink_to(elsewhere)
    (folder / "c.txt").symlink_to(folder / "a" / "a.txt")
    (folder / "d.txt").symlink_to(folder / "nothing")
    (folder / "e.txt").symlink_to("e.txt")
    records = read_documents(folder, shelf)
    assert [(record.path, record.status, record.note.partition(" (")[0]) for record in records] == [
        ("a/a.txt", "read", ""),
        ("a/loop/", "duplicate", "a link to a folder that is read already"),
        ("b/e.txt", "read", ""),
        ("c.txt", "duplicate", "same content as a/a.txt"),
        ("d.txt", "unreadable", "leads to nothing that can be opened"),
        ("e.txt", "unreadable", "leads to nothing that can be opened"),
    ]


def test_a_pipe_is_not_waited_for_and_a_strange_name_can_be_kept(folder: Path, shelf: Path) -> None:
    write(folder, "a.txt", "text")
    os.mkfifo(folder / "b.txt")
    (folder / os.fsdecode(b"c\xff.txt")).write_text("strange")
    records = read_documents(folder, shelf)
    assert statuses(records) == {"a.txt": "read", "b.txt": "unsupported", "c\\udcff.txt": "read"}
    assert load_records(shelf) == records


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_said(folder: Path, shelf: Path) -> None:
    write(folder, "a.txt", "text")
    write(folder, "b.txt", "secret").chmod(0)
    write(folder, "c/c.txt", "secret").parent.chmod(0)
    records = read_documents(folder, shelf)
    (folder / "c").chmod(0o700)
    assert statuses(records) == {"a.txt": "read", "b.txt": "unreadable", "c/": "unreadable"}
    assert all(record.note.endswith("check your rights to it") for record in records[1:])


def test_rights_that_the_system_denies_are_said(folder: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As before, for those who are root."""
    write(folder, "a.txt", "text")
    write(folder, "b.txt", "secret")
    write(folder, "c/c.txt", "secret")
    plain_open, plain_iterdir = Path.open, Path.iterdir

    def denied(path: Path) -> Path:
        if path.name in ("b.txt", "c"):
            raise PermissionError(13, "Permission denied")
        return path

    monkeypatch.setattr(Path, "open", lambda path, *args, **options: plain_open(denied(path), *args, **options))
    monkeypatch.setattr(Path, "iterdir", lambda path: plain_iterdir(denied(path)))
    records = read_documents(folder, shelf)
    assert [(record.path, record.status, record.note) for record in records] == [
        ("a.txt", "read", ""),
        ("b.txt", "unreadable", "cannot be opened (Permission denied); check your rights to it"),
        ("c/", "unreadable", "a folder that cannot be opened (Permission denied); check your rights to it"),
    ]


# ------------------------------------------------------------------------------------------- errors


def problem(path: Path, shelf: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_documents(path, shelf)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_nothing_to_read_is_an_error(folder: Path, shelf: Path) -> None:
    assert problem(folder / "no", shelf) == "no such file or folder; check the path"
    assert not shelf.exists()
    assert problem(folder, shelf).startswith("holds no documents; put some there (.txt, .md, ")
    write(folder, "a.exe", b"MZ")
    write(folder, "b.pdf", b"broken")
    write(folder, "c.txt", "")
    assert problem(folder, shelf) == (
        "none of its files can be read (1 unsupported, 1 unreadable, 1 empty); "
        "first b.pdf: no PDF, whatever it is called; rename it as what it is, or save it as PDF"
    )
    assert problem(folder / "c.txt", shelf) == "holds no text"
    assert load_records(shelf) == []


def test_a_folder_that_can_no_longer_be_read_leaves_the_records_as_they_were(folder: Path, shelf: Path) -> None:
    path = write(folder, "a.txt", "text")
    records = read_documents(folder, shelf)
    path.write_text("")
    problem(folder, shelf)
    assert load_records(shelf) == records


def test_pieces_need_a_word_and_the_store_to_itself(folder: Path, shelf: Path) -> None:
    write(folder, "a.txt", "text")
    with pytest.raises(ConfigError, match="max_words is 0; give a piece at least one word"):
        read_documents(folder, shelf, max_words=0)
    with locked(shelf), pytest.raises(ArtifactError, match="another process is at work in it; wait until it is done"):
        read_documents(folder, shelf)


def test_pieces_that_are_missing_or_damaged_are_an_error(folder: Path, shelf: Path) -> None:
    write(folder, "a.txt", "text")
    [record] = read_documents(folder, shelf)
    with pytest.raises(ArtifactError, match=r"missing or damaged; read the documents again \(this one is a.txt\)"):
        list(pieces_of(shelf, [replace(record, digest="0" * 64)]))
    path = shelf / "pieces" / f"{record.digest}.jsonl"
    path.write_text(path.read_text().replace("text", "next"))
    with pytest.raises(ArtifactError, match="missing or damaged"):
        list(pieces_of(shelf, [record]))


def test_damaged_records_are_an_error(shelf: Path) -> None:
    write(shelf, store.RECORDS, json.dumps([{"path": "a.txt"}]))
    with pytest.raises(ArtifactError, match="delete it and read the documents again"):
        load_records(shelf)


# ------------------------------------------------------------------------------------------- memory


def test_memory_does_not_grow_with_the_length_of_a_document(folder: Path, shelf: Path) -> None:
    """Three mebibytes and more of rows, and of paragraphs, take hardly more than one."""
    words = " ".join(f"word{number}" for number in range(100))

    def peak(num_rows: int) -> int:
        write(folder, "a.csv", "name,text\n" + "".join(f"lamp {n},{words}\n" for n in range(num_rows)))
        write(folder, "b.txt", "".join(f"{n} {words}\n\n" for n in range(num_rows)))
        tracemalloc.start()
        records = read_documents(folder, shelf)
        assert [record.status for record in records] == ["read", "read"]
        assert sum(1 for _ in pieces_of(shelf, records)) > 2 * num_rows / 3
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    short = peak(1_600)
    assert peak(4_800) < short + (1 << 20)
