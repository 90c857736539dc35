"""Which pieces of a long document the teacher is shown: the best that fit, in their order, and none cut in silence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selftaught.config import LearnConfig, PromptConfig
from selftaught.continual.contexts import Room, fitted, room_of, with_pieces
from selftaught.data.documents import cut_text, read_documents
from selftaught.errors import DataError
from selftaught.models.load import load_model
from selftaught.train.rows import prepare
from selftaught.types import Example, Message

PLACES = {"Ola": "Lima", "Bex": "Rome", "Cid": "Oslo", "Dov": "Cork", "Eli": "Bonn", "Fay": "Nice"}


def about(name: str, num_words: int = 280) -> str:
    """A paragraph that is a piece by itself."""
    return f"{name} is in {PLACES[name]}. " + " ".join(["Rain fell."] * (num_words // 2))


LONG = "\n\n".join(map(about, PLACES))


def row(question: str = "Where are Eli and Bex?", **fields: Any) -> Example:
    fields = {"demonstration": "In Bonn and in Rome.", "context": LONG, **fields}
    return Example("long", (Message("user", question),), **fields)


class Words:
    """A tokenizer whose tokens are words, and whose chat template adds none."""

    def apply_chat_template(self, conversation: Any, **options: Any) -> str:
        return " ".join(turn["content"] for turn in conversation)

    def __call__(self, text: str, **options: Any) -> dict[str, Any]:
        return {"input_ids": text.split()}


def room(tokens: int) -> Room:
    return Room(Words(), PromptConfig(), tokens)


def names_in(context: str | None) -> list[str]:
    return [name for name in PLACES if f"{name} is in" in (context or "")]


def test_a_text_is_cut_as_a_document_is(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(LONG, encoding="utf-8")
    records = read_documents(tmp_path / "a.txt", tmp_path / "store")
    assert records[0].num_pieces == len(cut_text(LONG)) == len(PLACES)
    assert "\n\n".join(cut_text(LONG)) == LONG


def test_what_fits_is_left_as_it_is() -> None:
    assert fitted([row()], {}, room(10_000)) == ([row()], [])


@pytest.mark.parametrize(("tokens", "names"), [(400, 1), (700, 2), (1000, 3), (1700, 5)])
def test_the_pieces_that_fit_best_are_kept_in_their_order(tokens: int, names: int) -> None:
    (one,), told = fitted([row()], {}, room(tokens))
    assert one.context is not None
    found = names_in(one.context)
    assert told == [{"id": "long", "shown": names, "pieces": 6}]
    assert len(found) == names
    best = {"Bex", "Eli"}
    assert best <= set(found) or set(found) <= best
    assert [one.context.index(f"{name} is in") for name in found] == sorted(one.context.index(name) for name in found)
    assert room(tokens).holds(one)


def test_the_answer_finds_its_piece_too() -> None:
    (one,), _ = fitted([row("Where does it lie?", demonstration="In Cork.")], {}, room(400))
    assert names_in(one.context) == ["Dov"]


def test_all_else_of_a_row_stays() -> None:
    (one,), _ = fitted([row(answers=("Bonn",), group="g", source="a.txt")], {}, room(700))
    assert replace(one, context=LONG) == row(answers=("Bonn",), group="g", source="a.txt")


def test_pieces_of_documents_stay_whole_and_are_counted_as_such() -> None:
    parts = {"long": [about("Ola", 100), about("Bex", 100), about("Eli", 100)]}
    long = row(context="\n\n".join(parts["long"]))
    (one,), told = fitted([long], parts, room(250))
    assert one.context == "\n\n".join(parts["long"][1:])
    assert told == [{"id": "long", "shown": 2, "pieces": 3}]


def test_a_row_that_is_shown_to_nobody_keeps_its_document() -> None:
    test = row(split="test")
    assert fitted([test], {}, room(400), lambda one: one.split == "train") == ([test], [])
    assert fitted([test], {}, room(400))[1]


def test_where_not_one_piece_fits_the_row_is_left_for_its_own_error() -> None:
    assert fitted([row()], {}, room(100)) == ([row()], [])


def test_the_room_is_what_the_teacher_may_be_shown_beside_the_longest_answer(tiny_model: Path) -> None:
    """Checked against what training itself accepts: one token less of document fits, one more does not."""
    model = load_model(tiny_model, dtype="float32")
    config = LearnConfig(prompts=PromptConfig(max_teacher_tokens=100_000))
    short = row(context="x")
    tokens = room_of(str(tiny_model), [short], config)

    def filled(extra: int) -> Example:
        from selftaught.prompts import render, teacher_messages

        used = len(render(teacher_messages(short, config.prompts), model.tokenizer))
        return row(context="x" * (1 + tokens.tokens - used + extra))

    assert tokens.holds(filled(0))
    prepare([filled(0)], model, config)
    assert not tokens.holds(filled(1))
    with pytest.raises(DataError, match="its teacher prompt has"):
        prepare([filled(1)], model, config)


def test_the_room_is_no_more_than_the_configuration_allows(tiny_model: Path) -> None:
    config = LearnConfig(prompts=PromptConfig(max_teacher_tokens=500))
    assert room_of(str(tiny_model), [row()], config).tokens == 500


# ------------------------------------------------------------------------------- rows without a document


@pytest.fixture
def read(tmp_path: Path) -> tuple[Any, Path]:
    (tmp_path / "places").mkdir()
    for name, place in PLACES.items():
        (tmp_path / "places" / f"{name}.txt").write_text(f"{name} is in {place}.", encoding="utf-8")
    return read_documents(tmp_path / "places", tmp_path / "store"), tmp_path / "store"


@pytest.mark.parametrize(
    ("count", "contexts"),
    [
        (1, ["Bex is in Rome."]),
        (2, ["Bex is in Rome.", "Eli is in Bonn."]),
        (9, ["Bex is in Rome.", "Eli is in Bonn."]),
    ],
)
def test_a_row_without_a_document_gets_the_best_pieces(
    count: int, contexts: Sequence[str], read: tuple[Any, Path]
) -> None:
    (one,), parts = with_pieces([row("Where are Eli and Bex?", context=None)], *read, count)
    assert one.context == "\n\n".join(contexts)
    assert one.source == "Bex.txt"
    assert parts == {"long": contexts}


def test_neighbours_and_rows_with_a_document_get_none(read: tuple[Any, Path]) -> None:
    rows = [replace(row(context=None, group="neighbour", demonstration=None), id="n"), row()]
    assert with_pieces(rows, *read, 2) == (rows, {})
