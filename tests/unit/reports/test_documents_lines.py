"""What became of files, in words: every reason that there is room for, the worst first, and no file uncounted."""

from __future__ import annotations

from typing import Any

from selftaught.reports.reading import contexts_line, documents_lines


def record(path: str, status: str = "read", note: str = "", pieces: int = 0) -> dict[str, Any]:
    return {"path": path, "status": status, "note": note, "num_pieces": pieces, "num_words": 10 * pieces}


def test_the_worst_comes_first_and_what_was_simply_read_is_only_counted() -> None:
    records = [
        record("a.txt", pieces=2),
        record("b.txt", note="read as cp1252", pieces=1),
        record("c.txt", "empty", "holds no text"),
        record("d.pdf", "password", "opens only with a password"),
        record("e.pdf", "unreadable", "damaged"),
        record("f.pdf", "partly", "no text on page 2", pieces=1),
    ]
    assert documents_lines(records) == [
        "Documents: 2 read, 1 empty, 1 partly, 1 password, 1 unreadable; 40 words in 4 pieces.",
        "  1 unreadable (damaged): e.pdf",
        "  1 password (opens only with a password): d.pdf",
        "  1 partly (no text on page 2): f.pdf",
        "  1 empty (holds no text): c.txt",
        "  1 read (read as cp1252): b.txt",
    ]


def test_of_many_files_every_status_keeps_its_place_and_all_are_counted() -> None:
    records = [
        *(record(f"{n}.txt", "empty", "holds no text") for n in range(500)),
        *(record(f"{n}.md", "duplicate", f"same text as {n}.html") for n in range(90)),
        *(record(f"{n}.pdf", "unreadable", f"broken at {n % 7}") for n in range(70)),
        record("one.pdf", pieces=1),
    ]
    lines = documents_lines(records)
    assert len(lines) < 12
    assert lines[0].startswith("Documents: 1 read, 90 duplicate, 500 empty, 70 unreadable;")
    assert sum(int(line.split()[0]) for line in lines[1:]) == 660
    assert "  500 empty (holds no text): 0.txt, 1.txt, 2.txt and 497 more" in lines
    assert "  90 duplicate (of others): 0.md, 1.md, 2.md and 87 more" in lines
    assert "  30 more unreadable, for other reasons" in lines


def test_one_file() -> None:
    assert documents_lines([record("a.txt", pieces=1)]) == ["Documents: 1 read; 10 words in 1 piece."]


def test_documents_that_are_not_shown_whole_are_named_with_how_much_is_shown() -> None:
    cut = [{"id": f"r{n}", "shown": n, "pieces": 9} for n in range(1, 6)]
    said = "longer than a prompt may be, and shown in the pieces that fit best: r1 (1 of 9)"
    assert contexts_line([]) == ""
    assert contexts_line(cut[:1]) == f"1 row's document is {said}"
    assert contexts_line(cut) == f"5 rows' documents are {said}, r2 (2 of 9), r3 (3 of 9) and 2 more"
