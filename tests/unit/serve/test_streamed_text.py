"""Text that comes in pieces is the text of the whole, and a stop string is never seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftaught.models.load import load_tokenizer
from selftaught.serve.text import UNFINISHED, Text

WORDS = st.text(st.sampled_from("abc é🙂漢\n ▁́") | st.characters(codec="utf-8"), max_size=30)


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return load_tokenizer(tiny_model)  # a token a byte: most characters come in pieces


def told(text: Text, pieces: list[list[int]]) -> list[str]:
    parts = [text.add(piece) for piece in pieces]
    return [*parts, text.end()]


def cut(ids: list[int], places: list[int]) -> list[list[int]]:
    ends = sorted({min(place, len(ids)) for place in places} | {len(ids)})
    return [ids[begin:end] for begin, end in zip([0, *ends], ends)]


@given(words=WORDS, places=st.lists(st.integers(0, 120), max_size=12))
def test_pieces_make_up_the_whole(tokenizer: Any, words: str, places: list[int]) -> None:
    ids = tokenizer(words, add_special_tokens=False)["input_ids"]
    parts = told(Text(tokenizer), cut(ids, places))
    assert "".join(parts) == tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if UNFINISHED not in words:
        assert not any(UNFINISHED in part for part in parts), "no half character"


@given(
    words=st.text("ab", max_size=20),
    stops=st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3),
    places=st.lists(st.integers(0, 20), max_size=8),
)
def test_what_is_shown_ends_before_the_first_stop(
    tokenizer: Any, words: str, stops: list[str], places: list[int]
) -> None:
    ids = tokenizer(words, add_special_tokens=False)["input_ids"]
    text = Text(tokenizer, stops)
    shown = ""
    for piece in cut(ids, places):
        shown += text.add(piece)
        assert not any(stop in shown for stop in stops)
        if text.stopped:
            break
    shown += text.end()
    assert text.stopped == any(stop in words for stop in stops)
    assert words.startswith(shown) and not any(stop in shown for stop in stops)
    if not text.stopped:
        assert shown == words
    elif len(cut(ids, places)) == 1:
        assert shown == words[: min(words.find(stop) for stop in stops if stop in words)]


def test_the_stop_token_is_not_text(tokenizer: Any) -> None:
    ids = tokenizer("Yes", add_special_tokens=False)["input_ids"]
    assert "".join(told(Text(tokenizer), [ids, [tokenizer.eos_token_id]])) == "Yes"
