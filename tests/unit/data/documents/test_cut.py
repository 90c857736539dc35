"""Pieces: where they are cut, what they know of their place, and that nothing is lost."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from selftaught.data.documents.blocks import Block, Kind, cleaned
from selftaught.data.documents.cut import Cut, count_words, cut

CJK = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")


def words(count: int, stem: str = "w") -> str:
    return " ".join(f"{stem}{number}" for number in range(count))


def pieces(*blocks: Block, max_words: int = 10) -> list[Cut]:
    return list(cut(blocks, max_words))


def texts(*blocks: Block, max_words: int = 10) -> list[str]:
    return [piece.text for piece in pieces(*blocks, max_words=max_words)]


# ----------------------------------------------------------------------------------------- structure


def test_a_piece_knows_its_headings_its_page_and_its_words() -> None:
    made = pieces(
        Block("heading", "Shop", 1, 1),
        Block("paragraph", "We sell lamps.", page=1),
        Block("heading", "Returns", 2, 2),
        Block("paragraph", "Within 45 days.", page=2),
        Block("heading", "Exceptions", 3, 2),
        Block("paragraph", "None.", page=3),
        Block("heading", "Opening hours", 2, 4),
        Block("paragraph", "From nine.", page=4),
    )
    assert made == [
        Cut(("Shop",), 1, "Shop\n\nWe sell lamps.", 4),
        Cut(("Shop", "Returns"), 2, "Returns\n\nWithin 45 days.", 4),
        Cut(("Shop", "Returns", "Exceptions"), 2, "Exceptions\n\nNone.", 2),
        Cut(("Shop", "Opening hours"), 4, "Opening hours\n\nFrom nine.", 4),
    ]


def test_headings_in_a_row_stay_with_what_follows() -> None:
    made = pieces(Block("heading", "A", 1), Block("heading", "B", 2), Block("paragraph", "text"))
    assert made == [Cut(("A", "B"), None, "A\n\nB\n\ntext", 3)]


def test_a_section_that_the_text_does_not_name_begins_a_piece() -> None:
    made = pieces(
        Block("paragraph", "before"),
        Block("section", "Returns", 1),
        Block("paragraph", "after"),
    )
    assert made == [Cut((), None, "before", 1), Cut(("Returns",), None, "after", 1)]


def test_a_heading_is_never_left_alone_above_a_paragraph_that_fills_a_piece() -> None:
    made = texts(Block("heading", "Two words", 1), Block("paragraph", words(10)))
    assert [text.split("\n\n")[0] for text in made] == ["Two words", "w5 w6 w7 w8 w9"]
    assert "".join("".join(made).split()) == "Twowords" + "".join(words(10).split())


def test_paragraphs_fill_a_piece_and_are_not_cut() -> None:
    made = texts(
        Block("paragraph", words(4, "a")), Block("paragraph", words(6, "b")), Block("paragraph", words(9, "c"))
    )
    assert made == [f"{words(4, 'a')}\n\n{words(6, 'b')}", words(9, "c")]


def test_the_last_two_pieces_share_if_the_last_would_be_short() -> None:
    made = texts(*(Block("paragraph", words(2, stem)) for stem in "abcdef"), max_words=10)
    assert made == ["\n\n".join(words(2, stem) for stem in "abc"), "\n\n".join(words(2, stem) for stem in "def")]


def test_a_heading_does_not_end_the_piece_that_shares() -> None:
    made = texts(
        Block("heading", words(6, "h"), 1), Block("paragraph", words(4, "a")), Block("paragraph", words(2, "b"))
    )
    assert made == [f"{words(6, 'h')}\n\n{words(4, 'a')}", words(2, "b")]


def test_items_stand_close_and_paragraphs_apart() -> None:
    made = texts(
        Block("paragraph", "Three:"), *(Block("item", f"- {name}") for name in "abc"), Block("paragraph", "So.")
    )
    assert made == ["Three:\n\n- a\n- b\n- c\n\nSo."]


def test_a_long_paragraph_is_cut_between_sentences() -> None:
    text = "One two three four. Dr. Lamp pays 1.5 e.g. now! Does he? “He does.” No more"
    assert texts(Block("paragraph", text), max_words=6) == [
        "One two three four.",
        "Dr. Lamp pays 1.5 e.g. now!",
        "Does he? “He does.” No more",
    ]


def test_only_a_sentence_too_long_for_a_piece_is_cut_between_words() -> None:
    long = [f"W{number}" for number in range(25)]
    made = texts(Block("paragraph", f"Short one. {' '.join(long)}. Short two."), max_words=10)
    assert made == ["Short one.", " ".join(long[:9]), " ".join(long[9:18]), f"{' '.join(long[18:])}. Short two."]


def test_lines_that_mean_something_are_cut_at_line_ends() -> None:
    code = "def first():\n    return 1\n\ndef second():\n    return 2 + 2"
    assert texts(Block("lines", code), max_words=5) == [
        "def first():\n    return 1",
        "def second():",
        "    return 2 + 2",
    ]
    assert texts(Block("lines", code), max_words=50) == [code]


def test_chinese_has_a_word_a_character_and_ends_its_sentences_without_a_space() -> None:
    text = "今天天气很好。我们去公园散步吧。好！"
    assert count_words(text) == 15
    assert texts(Block("paragraph", text), max_words=9) == ["今天天气很好。", "我们去公园散步吧。好！"]


@pytest.mark.parametrize("kind", ["paragraph", "lines", "heading"])
def test_a_word_of_any_length_is_whole(kind: Kind) -> None:
    long = "x" * 100_000
    assert texts(Block(kind, f"a {long} b", 1), max_words=1) == ["a", long, "b"]


# ---------------------------------------------------------------------------------------- properties

some_words = st.text(st.sampled_from("abcXYZ09.,!?()-“”äßжあ漢字。！'"), min_size=1, max_size=9)
some_texts = st.lists(st.one_of(some_words, st.sampled_from(["\n", "\n\n", "  ", "e.g.", "Dr."])), max_size=40).map(
    " ".join
)
any_text = st.one_of(some_texts, st.text(max_size=60))
some_blocks = st.builds(
    Block,
    kind=st.sampled_from(["heading", "paragraph", "item", "lines", "section", "page"]),
    text=any_text,
    level=st.integers(1, 4),
    page=st.none() | st.integers(1, 9),
)


def squeezed(parts: list[str]) -> str:
    return "".join("".join(parts).split())


@settings(max_examples=100, deadline=None)
@given(blocks=st.lists(some_blocks, max_size=12), max_words=st.integers(1, 20))
@example(blocks=[Block("paragraph", "漢字。" * 30)], max_words=1)
@example(blocks=[Block("lines", "a\n\n\n\nb c d")], max_words=2)
def test_nothing_is_lost_no_word_is_cut_and_no_piece_is_too_long(blocks: list[Block], max_words: int) -> None:
    kept = [block for block in map(cleaned, blocks) if block is not None]
    told = [block.text for block in kept if block.kind not in ("section", "page")]
    made = list(cut(kept, max_words))
    assert squeezed([piece.text for piece in made]) == squeezed(told)
    assert all(piece.text == piece.text.strip("\n") != "" for piece in made)
    for piece in made:
        assert piece.num_words == count_words(piece.text) <= max_words
    for before, after in parted("\n".join(told), made):
        assert CJK.match(before) or CJK.match(after) or not before.isalnum(), f"cut between {before} and {after}"


def parted(whole: str, made: list[Cut]) -> list[tuple[str, str]]:
    """The characters on both sides of each cut that has no white space in it."""
    places = [place for place, character in enumerate(whole) if not character.isspace()]
    ends, found = 0, []
    for piece in made[:-1]:
        ends += len("".join(piece.text.split()))
        before, after = places[ends - 1], places[ends]
        if after == before + 1:
            found.append((whole[before], whole[after]))
    return found


@settings(max_examples=100, deadline=None)
@given(text=any_text)
def test_words_are_what_white_space_parts_and_chinese_characters(text: str) -> None:
    if not re.search("[。！？]", text) and not CJK.search(text):
        assert count_words(text) == len(text.split())
    assert count_words(text) >= len(CJK.findall(text))


@settings(max_examples=100, deadline=None)
@given(block=some_blocks)
def test_a_cleaned_block_can_be_written_and_cleaning_it_again_changes_nothing(block: Block) -> None:
    once = cleaned(block)
    if once is not None and once.kind != "page":
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u00ad\ufeff]", once.text)
        assert once.kind == "lines" or "\n" not in once.text
        assert cleaned(once) == once


def test_half_a_character_and_a_nul_are_replaced() -> None:
    assert cleaned(Block("paragraph", "a\ud800b\0c\u00add")) == Block("paragraph", "a?b cd")
