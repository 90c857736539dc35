"""The built-in corpus written as files of all formats: what is read back, and the questions about it."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from selftaught.data import load_examples
from selftaught.data.corpora import disasters, events
from selftaught.data.corpora.written import TABLE_ROWS, WRITERS, title, write_disasters
from selftaught.data.documents import DocumentRecord, pieces_of, read_documents
from selftaught.words import words

CHOSEN = tuple(f"d{number:02}" for number in range(1, 15))  # ten files, two of each format, and the table


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with some of the corpus; do not write into it."""
    folder = tmp_path_factory.mktemp("written")
    write_disasters(folder / "articles", folder / "questions.jsonl", CHOSEN)
    return folder


@pytest.fixture(scope="module")
def records(written: Path) -> list[DocumentRecord]:
    return read_documents(written / "articles", written / "store")


def test_every_format_is_written(written: Path) -> None:
    suffixes = Counter(path.suffix for path in (written / "articles").iterdir())
    assert suffixes == {**dict.fromkeys(WRITERS, 2), ".csv": 1}


def test_every_file_is_read_whole(records: list[DocumentRecord]) -> None:
    assert {record.status for record in records} == {"read"}
    assert {record.format for record in records} == {"text", "markdown", "html", "word", "pdf", "table"}


def test_every_article_is_read_back_with_its_words(written: Path, records: list[DocumentRecord]) -> None:
    texts: dict[str, str] = {}
    for piece in pieces_of(written / "store", records):
        texts[piece.document] = texts.get(piece.document, "") + "\n" + piece.text
    table = " ".join(words(texts.pop("more.csv")))
    read = {Path(name).stem: " ".join(words(text)) for name, text in texts.items()}
    chosen = [event for event in events() if event["id"] in CHOSEN]
    assert list(read) == [event["id"] for event in chosen[:-TABLE_ROWS]]
    for event in chosen:
        assert " ".join(words(event["article"])) in read.get(event["id"], table), event["id"]


def test_a_file_of_one_event_has_its_name_wherever_its_format_has_titles(
    written: Path, records: list[DocumentRecord]
) -> None:
    names = {event["id"]: title(event) for event in events()}
    told = {Path(piece.document): piece.title for piece in pieces_of(written / "store", records)}
    titled = {path.stem: name for path, name in told.items() if path.suffix not in (".txt", ".csv")}
    assert len(titled) == 8
    assert titled == {id: names[id] for id in titled}


def test_the_questions_are_those_of_the_corpus_and_only_asked(written: Path) -> None:
    examples, corpus = load_examples(written / "questions.jsonl"), disasters(CHOSEN)
    assert {example.split for example in examples} == {"test"}
    assert all(example.context is None for example in examples)
    assert [(one.id, one.question, one.answers, one.group) for one in examples] == [
        (one.id, one.question, one.answers, one.group) for one in corpus
    ]


def test_what_is_written_already_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    for _ in range(2):
        write_disasters(tmp_path / "a", tmp_path / "questions.jsonl", CHOSEN[:3])
        (tmp_path / "a" / "d01.txt").write_text("mine", encoding="utf-8")
    assert (tmp_path / "a" / "d01.txt").read_text(encoding="utf-8") == "mine"


def test_one_event_is_a_file_and_no_table(tmp_path: Path) -> None:
    write_disasters(tmp_path / "a", tmp_path / "questions.jsonl", CHOSEN[:1])
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["d01.txt"]
