"""PDF: real files, with pages that are pictures, outlines, passwords and damage."""

from __future__ import annotations

import base64
import logging
import zlib
from pathlib import Path
from random import Random

import pytest
from made_documents import blocks_of, pdf_bytes, shown, write_locked_pdf, write_pdf
from pypdf import PageObject, PdfReader

from selftaught.data.documents import pdf
from selftaught.data.documents.blocks import Block, Contents, PasswordNeeded
from selftaught.errors import DataError

LINES = [
    "A lamp may be returned within forty-five days of its pur-",
    "chase, in the cellar, to Odile Marchetti, who is there from",
    "nine to five.",
    "Repairs are made by her, too, on every day of the week when",
    "she is not on holiday:",
    "- cables,",
    "- switches.",
]

# Made by pypdf: AES-128, readable without a password.
AES = (
    "eNqNUztv1EAQpkmQLEFJB9omBQV432tLl5MuuTsSkighFyIhoFh718mhix35Ni8aUEQFUgSUCApEQQokOiTEP0BIKYACgXjzA/gHjC+X3ImjwLbs"
    "3c8z33yzMzMyV62fIWeZN/L9x95bjyCMsuiaVyp5/sLWqkX+uHa6lS15/pxesm1EwWDeK5c9m5rCkA44dOw8fzxbSx0inj/VNG10GbHCEV3tc2X/"
    "dC0C5RZc9yP5M9Y09Vi2CRQYbkkoUiEFIn/etrO1PAZRBUM9A5/OgiB+IBIeEJI64Gsj8Zd0PhC/4PD8xlrkOtsChATGdNt22P0J21q3rhnrPhbR"
    "x1JvtpzNgaelna3aODOQzrRNl9wyCnDh1Ha51SvezvPh7SfTwbtHD0982d49xsuXdjdunj/9a+bW6xt71ZcTz4a+XnhaMS8e3Ft4c/Tnx9r7V0PH"
    "T/3+/Pjup5O3J7+17l8ZHU0/VFaP7GwM3xlfOTdViOlSd2XJ/uSarmVRKQ6MDCOtIhMKzQSRnBsu4jAOoshqxpkWkQ6USKQhMSYqCbXW1GiLE8yw"
    "4OW+rFUf/SLiUIzi1U2V0ACqiDgNeSgVDWnvZBpOp0bnxvNnUUlImUBAZi1jsQpVbFgUYp4YbZKAcJ2AKAMqWJBIaziJwoBbGkujqdYyEVDci8AS"
    "MhIpG2GC4Y8ggeVYRTaMDDZRbEBMlHArLLdKBJpD2hjDXiZJosEnKFqk3umchjPdVWXNLdfWiy70q1k8u2rTwmgG+ZVaY5H2EpUHTdZwK3W0T1Bs"
    "8sNN78g2c5t4GAUePryQFIIJlKBDjEA7df6kPUzyAYxQNoBRQQYwRgcxrugAJqTqYS7XzZbNO7VtNK9bkOzPZxkM8/5ETqZJhmR3XYW5LFGOKVYM"
    "Uwolg84hUgoSw4exUEWclP/HBCa6lsb51qpD6mBS207nrnNwgeLeyEhttu79AV3ySjA="
)


def test_pages_lines_and_paragraphs(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", [LINES, ["Second page."]], title="The handbook")
    blocks, contents = blocks_of(path)
    assert blocks == [
        Block("page", page=1),
        Block(
            "paragraph",
            "A lamp may be returned within forty-five days of its purchase, in the cellar, to Odile Marchetti, "
            "who is there from nine to five.",
            page=1,
        ),
        Block(
            "paragraph", "Repairs are made by her, too, on every day of the week when she is not on holiday:", page=1
        ),
        Block("paragraph", "- cables,", page=1),
        Block("paragraph", "- switches.", page=1),
        Block("page", page=2),
        Block("paragraph", "Second page.", page=2),
    ]
    assert (contents.title, contents.num_pages, contents.blank_pages, contents.remarks) == ("The handbook", 2, [], [])


def test_a_hyphen_that_the_page_has_elsewhere_is_kept(tmp_path: Path) -> None:
    lines = ["The well-known lamp is as well-", "known as it is old, and the lamp is al-", "so red, and well made."]
    [_, (_, text)] = shown(write_pdf(tmp_path / "a.pdf", [lines]))
    assert text == "The well-known lamp is as well-known as it is old, and the lamp is also red, and well made."


def test_every_word_of_every_page_is_there_on_its_page(tmp_path: Path) -> None:
    random = Random(0)
    pages = [[f"{made_up(random)} {made_up(random)} {line}." for line in range(30)] for _ in range(25)]
    blocks, contents = blocks_of(write_pdf(tmp_path / "a.pdf", pages))
    for number, lines in enumerate(pages, start=1):
        text = " ".join(block.text for block in blocks if block.page == number and block.kind != "page")
        assert text == " ".join(lines)
    assert contents.remarks == []


def made_up(random: Random) -> str:
    return "".join(random.choices("abcdefghij", k=6))


def test_a_sentence_goes_on_over_the_end_of_a_page_and_past_its_footer(tmp_path: Path) -> None:
    pages = [
        ["Lamps & Co.", "A lamp may be returned within forty-", "Page 1"],
        ["Lamps & Co.", "five days of its pur-", "Page 2"],
        ["Lamps & Co.", "chase. Then it is", "Page 3"],
        None,
        ["yours.", "Page 5"],
    ]
    blocks, contents = blocks_of(write_pdf(tmp_path / "a.pdf", pages))
    assert [(block.text, block.page) for block in blocks if block.text] == [
        ("Lamps & Co.", 1),
        ("Page 1", 1),
        ("A lamp may be returned within fortyfive days of its purchase. Then it is", 1),
        ("yours.", 5),
    ]
    assert contents.remarks == ["5 repeats of page headers left out ('Lamps & Co.')"]
    assert contents.blank_pages == [4]


def test_pages_without_text_are_counted(tmp_path: Path) -> None:
    blocks, contents = blocks_of(write_pdf(tmp_path / "a.pdf", [None, ["text"], None, [" "]]))
    assert [block.text for block in blocks if block.text] == ["text"]
    assert contents.blank_pages == [1, 3, 4]


# ------------------------------------------------------------------------------------ title, outline


@pytest.mark.parametrize("title", ["", " ", "untitled", "Microsoft Word - handbook final.doc", "scan0001.pdf"])
def test_a_title_that_a_program_gave_is_none(tmp_path: Path, title: str) -> None:
    assert blocks_of(write_pdf(tmp_path / "a.pdf", [["text"]], title=title))[1].title is None


def test_the_outline_makes_headings_of_lines_and_sections_of_what_is_not_found(tmp_path: Path) -> None:
    path = write_pdf(
        tmp_path / "a.pdf",
        [
            ["Chapter 1", "RETURNS", "Within 45 days.", "1.1 Lamps broken by", "their owners", "None."],
            ["Here they are."],
        ],
        outline=[("Returns", 1, -1), ("Lamps broken by their owners", 1, 0), ("Opening hours", 2, -1)],
    )
    assert shown(path) == [
        ("page", ""),
        ("heading1", "Chapter 1 RETURNS"),
        ("paragraph", "Within 45 days."),
        ("heading2", "1.1 Lamps broken by their owners"),
        ("paragraph", "None."),
        ("page", ""),
        ("section1", "Opening hours"),
        ("paragraph", "Here they are."),
    ]


def test_a_damaged_outline_costs_the_outline_only(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    data = pdf_bytes([["text"]])
    path.write_bytes(data.replace(b"/Pages 2 0 R >>", b"/Pages 2 0 R /Outlines 99 0 R >>"))
    assert ("paragraph", "text") in shown(path)


# ---------------------------------------------------------------------------------- what cannot be read


def test_a_password_is_needed(tmp_path: Path) -> None:
    with pytest.raises(PasswordNeeded, match="opens only with a password; save a copy without one"):
        blocks_of(write_locked_pdf(tmp_path / "a.pdf", [["secret"]], user_password="sesame"))


def test_a_file_that_only_its_owner_may_change_is_read(tmp_path: Path) -> None:
    assert shown(write_locked_pdf(tmp_path / "a.pdf", [["no secret"]], user_password=""))[1:] == [
        ("paragraph", "no secret")
    ]


@pytest.mark.parametrize("algorithm", ["AES-128", "AES-256"])
def test_a_password_is_needed_for_aes_too(algorithm: str, tmp_path: Path) -> None:
    with pytest.raises(PasswordNeeded, match="opens only with a password"):
        blocks_of(write_locked_pdf(tmp_path / "a.pdf", [["secret"]], "sesame", algorithm))


@pytest.mark.parametrize("content", ["I am a text file.", "<html><body>Hello</body></html>", "{}" * 1000])
def test_what_is_only_called_a_pdf_is_said_to_be_none(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"^no PDF, whatever it is called; rename it as what it is, or save it as PDF$"):
        blocks_of(tmp_path / "a.pdf")


def test_encryption_by_aes_without_a_password_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(zlib.decompress(base64.b64decode(AES)))
    assert shown(path) == [("page", ""), ("paragraph", "no secret")]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"%PDF-1.7\n",
        b"not a PDF at all",
        b"%PDF-1.7\n" + bytes(range(256)) * 40,
        pdf_bytes([["text"]])[:200],
        pdf_bytes([["text"]]).replace(b"/Kids", b"/Dogs"),
        pdf_bytes([]),
    ],
)
def test_damage_is_one_line_that_says_why(tmp_path: Path, data: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        blocks_of(path)
    told = ("not readable as PDF (", "it has no pages; save it again", "no PDF, whatever it is called; ")
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr() == ("", "")


def test_a_page_that_cannot_be_read_costs_that_page_only(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    whole = pdf_bytes([["first page"], ["second page"], ["third page"]])
    head = b">>\nstream\n"
    start = whole.index(head, whole.index(b"endstream")) + len(head)
    path.write_bytes(whole[:start] + bytes(20) + whole[start + 20 :])
    blocks, contents = blocks_of(path)
    assert [block.text for block in blocks if block.text] == ["first page", "third page"]
    assert contents.failed_pages + contents.blank_pages == [2]


def test_if_no_page_can_be_read_the_reason_is_the_first_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(page: PageObject) -> str:
        raise KeyError("no\nfont")

    monkeypatch.setattr(PageObject, "extract_text", fail)
    with pytest.raises(DataError, match=r"^a page cannot be read \('no\\nfont'\); save the file again$"):
        blocks_of(write_pdf(tmp_path / "a.pdf", [["text"], ["text"]]))


def test_warnings_are_remarks_and_the_logger_is_left_as_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("pypdf")
    before = (list(logger.handlers), logger.propagate, logger.level)
    path = tmp_path / "a.pdf"
    path.write_bytes(pdf_bytes([["text"]]).replace(b"startxref\n", b"startxref\n9"))
    blocks, contents = blocks_of(path)
    assert [block.text for block in blocks if block.text] == ["text"]
    assert len(contents.remarks) == 1
    assert contents.remarks[0].startswith("pypdf: ")
    assert (list(logger.handlers), logger.propagate, logger.level) == before
    assert caplog.records == []
    assert capsys.readouterr() == ("", "")


def test_objects_are_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many objects pypdf keeps does not grow with the pages."""
    monkeypatch.setattr(pdf, "KEPT_PAGES", 5)
    kept = []
    plain = pdf._text_of_page

    def counted(reader: PdfReader, number: int, contents: Contents) -> str | None:
        kept.append(len(reader.resolved_objects))
        return plain(reader, number, contents)

    monkeypatch.setattr(pdf, "_text_of_page", counted)
    blocks_of(write_pdf(tmp_path / "a.pdf", [["text"]] * 40))
    assert max(kept[5:]) < 30
