"""Text in every encoding, Markdown, and tables as CSV."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_documents import blocks_of, shown

from selftaught.data.documents.blocks import MAX_BLOCK
from selftaught.errors import DataError

FRENCH = "Le café est fermé à midi. Élodie préfère le thé, même l’été."
GERMAN = "Die Größe der Straße überrascht mich. Übung macht den Meister."
FINNISH = "Tänään on kaunis päivä. Mennään puistoon kävelemään, äiti sanoi."
CZECH = "Příliš žluťoučký kůň úpěl ďábelské ódy. Dnes je krásný den."
SPANISH = (
    "El niño comió piñas en la montaña. ¿Dónde está la estación? Mañana devolveré la lámpara que compré el año pasado."
)
ITALIAN = "La lampada può essere restituita. Perché l'officina è chiusa il martedì? Così è più facile, però è lontana."
POLISH = "Zażółć gęślą jaźń. Lampę można zwrócić w ciągu czterdziestu pięciu dni. Warsztat jest otwarty oprócz wtorków."
TURKISH = (
    "Bugün güzel bir gün. Işık ve şeker. Lamba satın alındıktan sonra kırk beş gün içinde iade edilebilir. "
    "Atölye salı dışında her gün açıktır."
)
RUSSIAN = (
    "Лампу можно вернуть в течение сорока пяти дней после покупки. Ремонтом ламп занимается мастерская в подвале; "
    "она открыта каждый день, кроме вторника."
)
GREEK = "Σήμερα είναι μια όμορφη μέρα. Πάμε στο πάρκο."
JAPANESE = "今日はとても良い天気です。公園に行きましょう。"


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# ----------------------------------------------------------------------------------------- encodings


@pytest.mark.parametrize("text", [FRENCH, GERMAN, CZECH, RUSSIAN, JAPANESE, "plain"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_mark_or_valid_utf8_is_no_guess(tmp_path: Path, text: str, encoding: str) -> None:
    blocks, contents = blocks_of(write(tmp_path, "a.txt", text.encode(encoding)))
    assert [block.text for block in blocks] == [text]
    assert contents.remarks == []


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (FRENCH, "cp1252"),
        (FRENCH.replace("’", "'"), "latin-1"),
        (GERMAN, "latin-1"),
        (FINNISH, "latin-1"),
        *(
            (text, "cp1252")
            for text in (SPANISH, ITALIAN, "café", "piñas", "Tänään", "Über", "20 °C", "It’s done", "4 €")
        ),
        (POLISH, "cp1250"),
        (TURKISH, "cp1254"),
        (CZECH, "cp1250"),
        (RUSSIAN, "cp1251"),
        (RUSSIAN, "koi8_r"),
        (GREEK, "cp1253"),
        (JAPANESE, "shift_jis"),
    ],
)
def test_an_encoding_that_is_not_named_is_guessed_and_said(tmp_path: Path, text: str, encoding: str) -> None:
    blocks, contents = blocks_of(write(tmp_path, "a.txt", text.encode(encoding)))
    assert [block.text for block in blocks] == [text]
    [remark] = contents.remarks
    assert remark.startswith("names no encoding; read as ")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_latin_text_in_utf16_without_a_mark(tmp_path: Path, encoding: str) -> None:
    assert shown(write(tmp_path, "a.txt", GERMAN.encode(encoding))) == [("paragraph", GERMAN)]


def test_one_bad_byte_does_not_turn_utf8_into_something_else(tmp_path: Path) -> None:
    data = FRENCH.encode() + b" \xff " + RUSSIAN.encode()
    blocks, contents = blocks_of(write(tmp_path, "a.txt", data))
    assert [block.text for block in blocks] == [f"{FRENCH} � {RUSSIAN}"]
    assert contents.remarks == ["1 damaged character (no UTF-8), now �"]


def test_a_replacement_character_of_the_files_own_is_no_damage(tmp_path: Path) -> None:
    blocks, contents = blocks_of(write(tmp_path, "a.txt", "lost: �"))
    assert [block.text for block in blocks] == ["lost: �"]
    assert contents.remarks == []


@pytest.mark.parametrize("data", [bytes(range(256)) * 20, b"text" * 5000 + b"\0", b"GIF89a\0\1\0"])
def test_what_is_no_text_is_an_error(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(DataError, match="no text file: it holds NUL characters"):
        blocks_of(write(tmp_path, "a.txt", data))


def test_a_character_between_two_reads_is_whole(tmp_path: Path) -> None:
    text = "a" * ((1 << 20) - 1) + "é" + " " + "b" * 10
    assert shown(write(tmp_path, "a.txt", text)) == [("paragraph", text)]


@settings(max_examples=50, deadline=None)
@given(data=st.binary(max_size=200))
def test_whatever_the_bytes_only_a_data_error_comes_out(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a.txt", "a.md", "a.csv", "a.html"):
            try:
                blocks, _ = blocks_of(write(Path(folder), name, data))
            except DataError as error:
                assert "\n" not in str(error)
                assert b"\0" in data or name == "a.html"
            else:
                assert all(block.text for block in blocks)


# ---------------------------------------------------------------------------------------------- text


def test_blank_lines_part_paragraphs_and_wrapped_lines_are_joined(tmp_path: Path) -> None:
    text = (
        "Lamps may be returned within 45 days of the\r\npurchase, in the cellar, to Odile Marchetti,\r\nif whole.\r\n"
        " \t\r\n\r\nSecond.\rStill second."
    )
    assert shown(write(tmp_path, "a.txt", text)) == [
        (
            "paragraph",
            "Lamps may be returned within 45 days of the purchase, in the cellar, to Odile Marchetti, if whole.",
        ),
        ("lines", "Second.\nStill second."),
    ]


@pytest.mark.parametrize(
    "text", ["Roses are red,\nviolets\nare blue, said the poet in his room.", "1. one\n2. two", "- a\n- b"]
)
def test_lines_of_an_authors_own_are_kept(tmp_path: Path, text: str) -> None:
    assert shown(write(tmp_path, "a.txt", text)) == [("lines", text)]


def test_a_long_text_without_blank_lines_is_not_held_whole(tmp_path: Path) -> None:
    line = "word " * 200 + "\n"
    blocks, _ = blocks_of(write(tmp_path, "a.txt", line * 2500))
    assert len(blocks) == 3
    assert max(len(block.text) for block in blocks) <= MAX_BLOCK + len(line)
    assert sum(len(block.text.split()) for block in blocks) == 200 * 2500


# ------------------------------------------------------------------------------------------ Markdown


def test_markdown(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "a.md",
        """---
title: "The handbook"
tags: [a]
---
# Shop #
We sell
*lamps*.

Returns
-------
- within 45 days
- unbroken

***

```python
# no heading
x = 1

y = 2
```
#no heading either
### Prices
| Lamp | Price \\| EUR |
|:-----|---:|
| Heron | 10 |
| Stork |
after
    code
""",
    )
    assert shown(path) == [
        ("lines", 'title: "The handbook"\ntags: [a]'),
        ("heading1", "Shop"),
        ("paragraph", "We sell *lamps*."),
        ("heading2", "Returns"),
        ("lines", "- within 45 days\n- unbroken"),
        ("lines", "```python\n# no heading\nx = 1\n\ny = 2\n```"),
        ("paragraph", "#no heading either"),
        ("heading3", "Prices"),
        ("lines", "Lamp: Heron\nPrice | EUR: 10"),
        ("lines", "Lamp: Stork"),
        ("paragraph", "after code"),
    ]
    assert blocks_of(path)[1].title == "The handbook"


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("---\n\n# Title\n", [("heading1", "Title")]),  # a rule, no front matter
        ("```\nnever closed\n\n# in it", [("lines", "```\nnever closed\n\n# in it")]),
        ("| a | b |\n|---|---|\n\ntext", [("lines", "a | b"), ("paragraph", "text")]),
        ("text\n| a | b |\n|---|---|\n| 1 | 2 |", [("paragraph", "text"), ("lines", "a: 1\nb: 2")]),
        ("a | b\nno table", [("paragraph", "a | b no table")]),
        ("~~~~\n~~~\n~~~~\n# H", [("lines", "~~~~\n~~~\n~~~~"), ("heading1", "H")]),
        ("![p](data:image/png;base64,iVBORw0KGgo=) shown", [("paragraph", "![p](data:image/png;base64,…) shown")]),
        ("#\ntext", [("paragraph", "# text")]),
        ("####### seven", [("paragraph", "####### seven")]),
        ("# C# and F#", [("heading1", "C# and F#")]),
        ("- a\n---", [("lines", "- a")]),
    ],
)
def test_markdown_at_its_edges(tmp_path: Path, text: str, blocks: list[tuple[str, str]]) -> None:
    assert shown(write(tmp_path, "a.md", text)) == blocks


def test_without_front_matter_the_first_heading_is_the_title(tmp_path: Path) -> None:
    assert blocks_of(write(tmp_path, "a.md", "text\n\n## First\n\n# Second"))[1].title == "First"


# -------------------------------------------------------------------------------------------- tables


def test_rows_are_lines_that_name_their_columns(tmp_path: Path) -> None:
    text = 'name,"opening, hours",note\r\nShop,"9 to 5\nand ""later""",\r\n\r\nCellar,,closed,extra\r\n'
    assert shown(write(tmp_path, "a.csv", text)) == [
        ("lines", 'name: Shop\nopening, hours: 9 to 5\nand "later"'),
        ("lines", "name: Cellar\nnote: closed\ncolumn 4: extra"),
    ]


@pytest.mark.parametrize(
    ("name", "delimiter"), [("a.csv", ","), ("a.csv", ";"), ("a.csv", "\t"), ("a.csv", "|"), ("a.tsv", "\t")]
)
def test_the_delimiter_is_found(tmp_path: Path, name: str, delimiter: str) -> None:
    text = f'a{delimiter}"b, c"{delimiter}d\n1{delimiter}"2,5"{delimiter}3\n'
    assert shown(write(tmp_path, name, text)) == [("lines", "a: 1\nb, c: 2,5\nd: 3")]


def test_a_column_without_a_name_has_a_number(tmp_path: Path) -> None:
    assert shown(write(tmp_path, "a.csv", "a,,c\n1,2,3\n")) == [("lines", "a: 1\ncolumn 2: 2\nc: 3")]


def test_a_header_alone_is_not_lost(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "a,b\n")
    assert shown(path) == [("lines", "a\nb")]
    assert blocks_of(path)[1].remarks == ["a header without rows"]


def test_a_quote_that_is_not_closed_loses_nothing(tmp_path: Path) -> None:
    assert shown(write(tmp_path, "a.csv", 'a,b\n1,"open\n2,3\n')) == [("lines", "a: 1\nb: open\n2,3")]


def test_a_cell_may_be_longer_than_the_limit_of_csv(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    assert shown(write(tmp_path, "a.csv", f"a\n{'x' * 200_000}\n")) == [("lines", f"a: {'x' * 200_000}")]
    assert csv.field_size_limit() == limit


cells = st.text(st.sampled_from('ab ,;"\n|é'), max_size=6).map(lambda cell: "\n".join(cell.split("\n")).strip())


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.lists(cells.filter(bool), min_size=3, max_size=3), min_size=1, max_size=4))
def test_every_cell_is_in_its_row_under_its_column(rows: list[list[str]]) -> None:
    out = io.StringIO(newline="")
    csv.writer(out).writerows([["first", "second", "third"], *rows])
    with tempfile.TemporaryDirectory() as folder:
        made = shown(write(Path(folder), "a.csv", out.getvalue()))
    expected = ["\n".join(f"{name}: {cell}" for name, cell in zip(["first", "second", "third"], row)) for row in rows]
    trimmed = ["\n".join(line.rstrip() for line in text.split("\n")).rstrip() for text in expected]
    assert made == [("lines", text) for text in trimmed]
