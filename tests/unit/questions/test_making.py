"""The making of questions, with scripted writers: what is kept, what is rejected, and what an interruption leaves."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from made_pieces import NAMES, TOWNS, Scripted, good, ignorant, mill_of, mills, piece

from selftaught.config import QuestionConfig
from selftaught.data import load_examples
from selftaught.data.documents import Piece
from selftaught.errors import DataError
from selftaught.evaluation.scorers import check_scorers
from selftaught.questions import QUESTIONS_FILE, REJECTED_FILE
from selftaught.questions.checking import ENOUGH, KNOWN, NOT_A_QUESTION, UNSURE
from selftaught.questions.making import PIECES_AT_ONCE, Making, collect_questions, make_parts
from selftaught.questions.writing import OPENERS

Row = dict[str, Any]


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the disk has kept after a power cut is not what is tested here."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


class Killed(BaseException):
    """The end of a process, of our making."""


def make(
    folder: Path,
    pieces: Sequence[Piece] | None = None,
    writer: Scripted | None = None,
    learner: Scripted | None = None,
    watch: Callable[[Making], None] = lambda making: None,
    seed: int = 0,
    **settings: Any,
) -> Mapping[str, int]:
    pieces = mills() if pieces is None else pieces
    writer, learner = writer or Scripted(good), learner or Scripted(ignorant)
    config = QuestionConfig(**{"samples": 3, "wordings": 2, "neighbours": 40, **settings})
    make_parts(lambda: pieces, writer, learner, config, folder, seed, watch=watch)
    return collect_questions(lambda: pieces, writer.name, config, folder, seed)


def rows(folder: Path, name: str = QUESTIONS_FILE) -> list[Row]:
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


def groups(folder: Path) -> Counter[str]:
    return Counter(row["group"] for row in rows(folder))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions about all mills; do not write into it."""
    folder = tmp_path_factory.mktemp("made")
    make(folder)
    return folder


# -------------------------------------------------------------------------------- what is kept


def test_the_questions_are_a_data_set(made: Path) -> None:
    examples = load_examples(made / QUESTIONS_FILE)
    check_scorers(examples)
    assert [example.id for example in examples] == [row["id"] for row in rows(made)]


def test_each_fact_is_taught_in_two_wordings_and_asked_in_one_more(made: Path) -> None:
    found = groups(made)
    assert (found["taught"], found["reworded"]) == (20, 10)


@pytest.mark.parametrize("wordings", [1, 2, 3])
def test_so_many_wordings_are_taught(wordings: int, tmp_path: Path) -> None:
    make(tmp_path, mills(2), wordings=wordings, neighbours=0)
    assert groups(tmp_path) == {"taught": 2 * wordings, "reworded": 2}


def test_one_answer_to_several_wordings_is_one_fact(tmp_path: Path) -> None:
    def whole(asked: str, start: str) -> str:
        text = good(asked, start)
        return f"The {NAMES[mill_of(asked)]} mill opened {text[0].lower()}{text[1:]}" if text[:3] == "In " else text

    make(tmp_path, mills(2), Scripted(whole), neighbours=0)
    assert groups(tmp_path) == {"taught": 4, "reworded": 2}


def test_what_is_held_out_is_not_taught(made: Path) -> None:
    splits = {(row["group"], row["split"]) for row in rows(made)}
    assert splits == {("taught", "train"), ("reworded", "test"), ("neighbour", "test")}


def test_no_held_out_wording_is_a_taught_one(made: Path) -> None:
    asked = Counter(row["question"] for row in rows(made))
    assert max(asked.values()) == 1


def test_a_row_holds_its_document_and_the_sentence_of_its_answer(made: Path) -> None:
    one = mills()[3]
    row = next(row for row in rows(made) if row["piece"] == one.id)
    assert (row["context"], row["source_document"]) == (one.text, one.document)
    assert row["quote"] == f"The {NAMES[3]} mill opened its doors in the town of {TOWNS[3]}."
    assert row["answer"] == f"In {TOWNS[3]}."


def test_a_row_names_its_section(tmp_path: Path) -> None:
    one = Piece("1-1", "a.txt", "Aldor mill", ("Mills", "The east"), 7, piece(0).text)
    make(tmp_path, [one])
    assert rows(tmp_path)[0]["section"] == "Mills › The east"


def test_no_more_neighbours_than_asked_for(tmp_path: Path) -> None:
    make(tmp_path, neighbours=4)
    assert groups(tmp_path)["neighbour"] == 4


# ---------------------------------------------------------------------------- what is rejected


def test_every_reject_has_its_reason(made: Path) -> None:
    found = rows(made, REJECTED_FILE)
    assert found
    assert all(row["reason"] and row["source_document"] and row["piece"] and "question" in row for row in found)


def test_every_question_is_kept_or_rejected(made: Path) -> None:
    written = len(OPENERS) * len(mills())
    neighbours = groups(made)["neighbour"]
    assert len(rows(made)) - neighbours + len(rows(made, REJECTED_FILE)) == written


def test_reasons_are_counted(tmp_path: Path) -> None:
    counts = make(tmp_path)
    assert counts["kept"] + counts["neighbours"] == len(rows(tmp_path))
    reasons = Counter(row["reason"] for row in rows(tmp_path, REJECTED_FILE))
    assert {name: count for name, count in counts.items() if name not in ("kept", "neighbours")} == reasons
    assert reasons == {NOT_A_QUESTION: 160, ENOUGH: 10}


def test_what_the_learner_knows_is_not_taught(tmp_path: Path) -> None:
    def knows_one(asked: str, start: str) -> str:
        return f"In {TOWNS[1]}." if NAMES[1] in asked else ignorant(asked, start)

    make(tmp_path, mills(2), learner=Scripted(knows_one))
    known = [row for row in rows(tmp_path, REJECTED_FILE) if row["reason"] == KNOWN]
    assert {row["piece"] for row in known} == {mills()[1].id}
    assert {row["without_document"] for row in known} == {f"In {TOWNS[1]}."}


def test_an_answer_that_changes_is_not_taught(tmp_path: Path) -> None:
    class Wavering(Scripted):
        def write(self, *words: Any) -> list[str]:
            *_, temperature, seed = words
            texts = super().write(*words)
            return [f"Draw {seed}." for _ in texts] if temperature else texts

    make(tmp_path, mills(2), Wavering(good))
    unsure = [row for row in rows(tmp_path, REJECTED_FILE) if row["reason"] == UNSURE]
    assert [row["other_answers"] for row in unsure] == [["Draw 1.", "Draw 2."]] * len(unsure)
    assert len(unsure) == 8


def test_no_question_at_all_is_an_error_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"no question was good enough \(\d+ × {NOT_A_QUESTION}[^\n]*$"):
        make(tmp_path, writer=Scripted(lambda asked, start: f"{start} of Utopia"))


# ----------------------------------------------------------------------------- no piece left out


def only(number: int) -> Callable[[str, str], str]:
    """Writes questions about one mill alone."""
    return lambda asked, start: f"{start} nothing" if start and mill_of(asked) != number else good(asked, start)


def test_no_piece_is_left_out(made: Path, tmp_path: Path) -> None:
    make(tmp_path, writer=Scripted(only(3)))
    wanted = {one.id for one in mills()}
    for folder in (made, tmp_path):
        assert {row["piece"] for row in rows(folder) if row["split"] == "train"} == wanted


def test_a_piece_without_a_question_is_told_of(tmp_path: Path) -> None:
    make(tmp_path, writer=Scripted(only(3)))
    told = [row for row in rows(tmp_path) if row["group"] == "telling"]
    assert {row["piece"] for row in told} == {one.id for one in mills() if one != mills()[3]}
    assert all(NAMES[mill_of(row["context"])] in row["question"] for row in told)
    assert all(row["split"] == "train" for row in told)


def test_general_requests_need_no_written_question(tmp_path: Path) -> None:
    writer, learner = Scripted(good), Scripted(ignorant)
    make(tmp_path, mills(2), writer, learner, form="general")
    assert groups(tmp_path) == {"telling": 6}
    assert not learner.asked
    assert not any("Write a question" in asked for asked in writer.asked)


def test_what_is_told_stands_in_the_text(tmp_path: Path) -> None:
    def invents(asked: str, start: str) -> str:
        return "It was built by King Arthur." if "Tell me" in asked else good(asked, start)

    make(tmp_path, mills(2), Scripted(invents), form="general")
    assert not [row for row in rows(tmp_path) if "Arthur" in row["answer"]]
    strangers = [row["other_answers"] for row in rows(tmp_path, REJECTED_FILE)]
    assert strangers == [["arthur", "king"]] * 2


# ------------------------------------------------------------------- a data set, whatever is said

TWO_PARTS = [piece(0), piece(0, 2, "The Aldor mill is in Ostby. In Ostby people bake bread.")]


def repeats(asked: str, start: str) -> str:
    return good(asked, start) if start or asked.endswith("?") else "It mills grain."


@pytest.mark.parametrize("form", ["questions", "general"])
def test_a_document_that_says_a_thing_twice_makes_a_data_set(form: str, tmp_path: Path) -> None:
    make(tmp_path, TWO_PARTS, Scripted(repeats), form=form)
    assert load_examples(tmp_path / QUESTIONS_FILE)


def test_an_answer_of_nothing_is_not_kept(tmp_path: Path) -> None:
    def silent(asked: str, start: str) -> str:
        return "" if "Tell me" in asked else good(asked, start)

    make(tmp_path, mills(2), Scripted(silent), form="general")
    assert len(load_examples(tmp_path / QUESTIONS_FILE)) == 4


# ------------------------------------------------------------------------------ interruptions


def stop_after(count: int) -> Callable[[Making], None]:
    def watch(making: Making) -> None:
        if making.done >= count:
            raise Killed

    return watch


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in (QUESTIONS_FILE, REJECTED_FILE)}


def test_finished_pieces_are_not_asked_about_again(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        make(tmp_path, watch=stop_after(PIECES_AT_ONCE))
    writer, learner = Scripted(good), Scripted(ignorant)
    make(tmp_path, writer=writer, learner=learner)
    assert {mill_of(asked) for asked in [*writer.asked, *learner.asked]} == set(range(PIECES_AT_ONCE, len(mills())))


def test_an_interruption_changes_nothing(made: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        make(tmp_path, watch=stop_after(PIECES_AT_ONCE))
    assert not (tmp_path / QUESTIONS_FILE).exists()
    make(tmp_path)
    assert contents(tmp_path) == contents(made)


def test_an_interruption_of_the_writer_changes_nothing(made: Path, tmp_path: Path) -> None:
    def dies(asked: str, start: str) -> str:
        if mill_of(asked) == PIECES_AT_ONCE:
            raise Killed
        return good(asked, start)

    with pytest.raises(Killed):
        make(tmp_path, writer=Scripted(dies))
    make(tmp_path)
    assert contents(tmp_path) == contents(made)


@pytest.mark.parametrize("changes", [{"seed": 1}, {"wordings": 1}, {"writer": Scripted(good, name="another")}])
def test_what_was_made_otherwise_is_made_again(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(Killed):
        make(tmp_path, watch=stop_after(PIECES_AT_ONCE))
    learner = Scripted(ignorant)
    make(tmp_path, learner=learner, **changes)
    assert {mill_of(asked) for asked in learner.asked} == set(range(len(mills())))


def test_progress_tells_how_far_it_is(tmp_path: Path) -> None:
    told: list[Making] = []
    make(tmp_path, watch=told.append)
    assert [(making.done, making.total) for making in told] == [(0, 10), (8, 10), (10, 10)]
    assert told[0].seconds_left is None
    assert told[1].seconds_left is not None
    assert told[2].seconds_left == 0
    assert told[-1].kept == 30
    assert told[-1].rejected == len(rows(tmp_path, REJECTED_FILE))
