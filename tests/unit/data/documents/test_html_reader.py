"""HTML: what is seen, in its order, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_documents import blocks_of, shown

from selftaught.data.documents import html
from selftaught.errors import DataError


def write(folder: Path, text: str | bytes, name: str = "a.html") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_page(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """<!DOCTYPE html><html><head><title> The
        shop </title><style>p { color: red }</style><script>var hidden = "<p>no</p>";</script></head>
        <body><nav><a href="/">Home</a></nav>
        <h1>Birkenau <em>Lights</em></h1>
        <p>We sell <b>lamps</b> &amp; more.<br>Come&nbsp;in!</p>
        <!-- secret --><noscript>no</noscript><template><p>no</p></template>
        <h2>Returns</h2>loose text<div>in a <span>box</span><p>inside</p>tail</div>
        <ul><li>one<li><p>two</p><p>more</p></li></ul><ol><li>first</li><li>second<ul><li>deep</ul></li><li>third</li></ol>
        <pre>def f():
    return  1</pre>
        <script type="text/plain">no</script></body></html>""",
    )
    assert shown(path) == [
        ("paragraph", "Home"),
        ("heading1", "Birkenau Lights"),
        ("paragraph", "We sell lamps & more. Come in!"),
        ("heading2", "Returns"),
        ("paragraph", "loose text"),
        ("paragraph", "in a box"),
        ("paragraph", "inside"),
        ("paragraph", "tail"),
        ("item", "- one"),
        ("item", "- two"),
        ("paragraph", "more"),
        ("item", "1. first"),
        ("item", "2. second"),
        ("item", "- deep"),
        ("item", "3. third"),
        ("lines", "def f():\n    return  1"),
    ]
    assert blocks_of(path)[1].title == "The shop"


@pytest.mark.parametrize(
    ("table", "rows"),
    [
        ("<tr><th>Lamp</th><th>Price</th></tr><tr><td>Heron</td><td>10</td></tr>", ["Lamp: Heron\nPrice: 10"]),
        (
            "<thead><tr><th>Lamp<th>Price<tbody><tr><td>Heron<td>10<tr><td>Stork<td>",
            ["Lamp: Heron\nPrice: 10", "Lamp: Stork"],
        ),
        ("<tr><th>Lamp</th><th>Price</th></tr><tr><td colspan=2>all sold</td></tr>", ["all sold", "Lamp | Price"]),
        ("<tr><th>Phone</th><td>12 <p>34</p></td></tr>", ["Phone: 12 34"]),
        ("<tr><td>a</td><td><b>b</b> c</td></tr>", ["a | b c"]),
        ("<caption>Prices</caption><tr><td>a</td><td>b</td></tr>", ["Prices", "a | b"]),
        ("<tr><th>A</th><th>B</th></tr>", ["A | B"]),
        ("<tr><td>out</td><td><table><tr><td>in</td><td>side</td></tr></table></td></tr>", ["out", "in | side"]),
    ],
)
def test_tables_row_by_row(tmp_path: Path, table: str, rows: list[str]) -> None:
    path = write(tmp_path, f"<p>before</p><table>{table}</table><p>after</p>")
    texts = [text for _, text in shown(path)]
    assert texts == ["before", *rows, "after"]


def test_the_header_of_one_table_is_not_that_of_the_next(tmp_path: Path) -> None:
    one = "<table><tr><th>A</th><th>B</th></tr><tr><td>1</td><td>2</td></tr></table>"
    path = write(tmp_path, f"{one}<table><tr><td>3</td><td>4</td></tr></table>")
    assert [text for _, text in shown(path)] == ["A: 1\nB: 2", "3 | 4"]


def test_a_table_for_the_layout_has_headings_and_paragraphs(tmp_path: Path) -> None:
    path = write(
        tmp_path, "<table><tr><td>menu</td><td><h1>Shop</h1><p>Lamps.</p><p>More.</p></td><td>side</td></tr></table>end"
    )
    assert shown(path) == [
        ("lines", "menu"),
        ("heading1", "Shop"),
        ("paragraph", "Lamps."),
        ("paragraph", "More."),
        ("lines", "side"),
        ("paragraph", "end"),
    ]


@pytest.mark.parametrize(
    ("page", "title"),
    [
        ("<title></title><h2>First <i>one</i></h2><h1>Second</h1>", "First one"),
        ("<p>x</p>", None),
        ("<head><title>T</title><body><p>no end of the head", "T"),
    ],
)
def test_titles(tmp_path: Path, page: str, title: str | None) -> None:
    blocks, contents = blocks_of(write(tmp_path, page))
    assert contents.title == title
    assert blocks


@pytest.mark.parametrize(
    "data",
    [
        '<meta charset="iso-8859-1"><p>Größe</p>'.encode("cp1252"),
        '<meta http-equiv="Content-Type" content="text/html; charset=windows-1252"><p>Größe</p>'.encode("cp1252"),
        '<meta charset="koi8-r"><p>Größe</p>'.encode(),  # it declares what it is not
        '<meta charset="utf-16"><p>Größe</p>'.encode(),
        "<p>Größe</p>".encode("utf-16"),
        b"\xef\xbb\xbf" + "<p>Größe</p>".encode(),
    ],
)
def test_encodings_that_need_no_guess(tmp_path: Path, data: bytes) -> None:
    blocks, contents = blocks_of(write(tmp_path, data))
    assert [block.text for block in blocks] == ["Größe"]
    assert contents.remarks == []


def test_a_declared_encoding_decides_where_bytes_alone_do_not(tmp_path: Path) -> None:
    data = '<meta charset="koi8-r"><p>Да</p>'.encode("koi8_r")
    assert shown(write(tmp_path, data, "a.HTM")) == [("paragraph", "Да")]


def test_deeply_nested_pages_keep_their_text(tmp_path: Path) -> None:
    assert shown(write(tmp_path, "<div>" * 3000 + "deep" + "</div>" * 3000)) == [("paragraph", "deep")]


def test_a_page_too_large_for_a_tree_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "MAX_BYTES", 1 << 20)
    with pytest.raises(DataError, match="larger than 1 MiB, too large for one page; divide it"):
        blocks_of(write(tmp_path, "<p>" + "x" * (1 << 20)))
