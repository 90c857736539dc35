"""Word documents: by python-docx where it can write them, by hand in their XML where it cannot."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import docx
import pytest
from docx.document import Document
from docx.enum.style import WD_STYLE_TYPE
from docx.opc.constants import RELATIONSHIP_TYPE
from docx.opc.packuri import PackURI
from docx.opc.part import Part
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls
from made_documents import blocks_of, shown

from selftaught.data.documents import word
from selftaught.data.documents.blocks import PasswordNeeded
from selftaught.errors import DataError


def written(folder: Path, fill: Callable[[Document], None]) -> Path:
    document = docx.Document()
    fill(document)
    path = folder / "a.docx"
    document.save(str(path))
    return path


def in_body(folder: Path, xml: str) -> Path:
    """A document whose body begins with this XML."""

    def fill(document: Document) -> None:
        wrapped = f"<w:body {nsdecls('w', 'wp', 'a')} {MORE_NAMES}>{xml}</w:body>"
        for number, element in enumerate(list(parse_xml(wrapped))):
            document.element.body.insert(number, element)

    return written(folder, fill)


MORE_NAMES = (
    'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006" xmlns:v="urn:schemas-microsoft-com:vml" '
    'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math"'
)


def run(text: str) -> str:
    return f'<w:r><w:t xml:space="preserve">{text}</w:t></w:r>'


def paragraph(*parts: str) -> str:
    return f"<w:p>{''.join(parts)}</w:p>"


# --------------------------------------------------------------------------------------- what is read


def test_headings_paragraphs_lists_and_tables_in_their_order(tmp_path: Path) -> None:
    def fill(document: Document) -> None:
        document.add_heading("The handbook", 0)
        document.add_heading("Returns", 1)
        document.add_paragraph("Lamps may\tbe returned.").add_run().add_break()
        document.add_paragraph("within 45 days", style="List Bullet")
        document.add_paragraph("unbroken", style="List Number 2")
        table = document.add_table(2, 3)
        for cell, text in zip(table._cells, ["Lamp", "Price", "Colour", "Heron", "10", ""]):
            cell.text = text
        document.add_heading("Repairs", 2)
        document.add_paragraph("")
        document.add_paragraph("By Odile.")

    path = written(tmp_path, fill)
    assert shown(path) == [
        ("heading1", "The handbook"),
        ("heading1", "Returns"),
        ("paragraph", "Lamps may be returned."),
        ("item", "- within 45 days"),
        ("item", "- unbroken"),
        ("lines", "Lamp: Heron\nPrice: 10"),
        ("heading2", "Repairs"),
        ("paragraph", "By Odile."),
    ]
    assert blocks_of(path)[1].title == "The handbook"


def test_the_title_is_the_documents_own_if_it_has_one(tmp_path: Path) -> None:
    def fill(document: Document) -> None:
        document.core_properties.title = " Lamps,\nall of them "
        document.add_heading("Returns", 1)

    assert blocks_of(written(tmp_path, fill))[1].title == "Lamps, all of them"


def test_a_style_of_the_authors_own_is_a_heading_if_it_is_based_on_one(tmp_path: Path) -> None:
    def fill(document: Document) -> None:
        styles = document.styles
        one = styles.add_style("Our Section", WD_STYLE_TYPE.PARAGRAPH)
        one.base_style = styles["Heading 3"]
        two = styles.add_style("Our Bullet", WD_STYLE_TYPE.PARAGRAPH)
        two.base_style = styles["List Bullet"]
        ring = styles.add_style("Ring", WD_STYLE_TYPE.PARAGRAPH)
        ring.base_style = ring
        for style in ("Our Section", "Our Bullet", "Ring"):
            document.add_paragraph(style, style=style)

    assert shown(written(tmp_path, fill)) == [
        ("heading3", "Our Section"),
        ("item", "- Our Bullet"),
        ("paragraph", "Ring"),
    ]


def test_what_python_docx_itself_leaves_out_is_read_and_deleted_text_is_not(tmp_path: Path) -> None:
    box = f"<w:txbxContent>{paragraph(run('in a box'))}</w:txbxContent>"
    drawn = f"<mc:Choice Requires='wps'><w:drawing>{box}</w:drawing></mc:Choice>"
    path = in_body(
        tmp_path,
        f"<w:sdt><w:sdtContent>{paragraph(run('in a control'))}</w:sdtContent></w:sdt>"
        + paragraph(
            run("one "),
            f"<w:ins>{run('inserted ')}</w:ins>",
            f"<w:del><w:r><w:delText>deleted</w:delText></w:r></w:del><w:moveFrom>{run('moved away')}</w:moveFrom>",
            f"<w:hyperlink>{run('linked')}</w:hyperlink>",
            f"<w:sdt><w:sdtContent>{run(' controlled')}</w:sdtContent></w:sdt>",
            "<w:r><w:fldChar w:fldCharType='begin'/><w:instrText>PAGE</w:instrText></w:r>",
            "<w:r><w:t>non</w:t><w:noBreakHyphen/><w:t>stop</w:t><w:br/><w:t>end</w:t></w:r>",
            "<m:oMath><m:r><m:t>x=1</m:t></m:r></m:oMath>",
        )
        + paragraph(run("anchor"), f"<w:r><mc:AlternateContent>{drawn}<mc:Fallback><w:pict>{box}</w:pict></mc:Fallback>"
                    "</mc:AlternateContent></w:r>")
        + paragraph(f"<w:r><w:pict><v:textbox>{box}</v:textbox></w:pict></w:r>"),
    )  # fmt: skip
    assert shown(path) == [
        ("paragraph", "in a control"),
        ("paragraph", "one inserted linked controllednon-stop endx=1"),
        ("paragraph", "anchor"),
        ("paragraph", "in a box"),
        ("paragraph", "in a box"),
    ]


def test_notes_stand_at_the_end_with_their_signs(tmp_path: Path) -> None:
    def fill(document: Document) -> None:
        reference = "<w:r {}><w:footnoteReference w:id='2'/></w:r>".format(nsdecls("w"))
        document.add_paragraph("Within 45 days")._p.append(parse_xml(reference))
        note = "<w:footnote w:id='{}' {}><w:p><w:r><w:t>{}</w:t></w:r></w:p></w:footnote>"
        notes = note.format(0, "w:type='separator'", "—") + note.format(2, "", "from the purchase")
        blob = f"<w:footnotes {nsdecls('w')}>{notes}</w:footnotes>".encode()
        kind = "application/vnd.openxmlformats-officedocument.wordprocessingml.footnotes+xml"
        part = Part(PackURI("/word/footnotes.xml"), kind, blob, document.part.package)
        document.part.relate_to(part, RELATIONSHIP_TYPE.FOOTNOTES)

    assert shown(written(tmp_path, fill)) == [
        ("paragraph", "Within 45 days[^2]"),
        ("item", "[^2] from the purchase"),
    ]


# -------------------------------------------------------------------------------------------- tables


def table(*rows: str) -> str:
    return f"<w:tbl>{''.join(rows)}</w:tbl>"


def row(*cells: str, bold: bool = False, head: bool = False) -> str:
    style = "<w:rPr><w:b/></w:rPr>" if bold else ""
    made = "".join(f"<w:tc>{paragraph(f'<w:r>{style}<w:t>{cell}</w:t></w:r>')}</w:tc>" for cell in cells)
    return f"<w:tr>{'<w:trPr><w:tblHeader/></w:trPr>' if head else ''}{made}</w:tr>"


@pytest.mark.parametrize(
    ("rows", "texts"),
    [
        ([row("Phone", "1 2 3"), row("Town", "Velsing")], ["Phone | 1 2 3", "Town | Velsing"]),
        ([row("Lamp", "Price", bold=True), row("Heron", "10")], ["Lamp: Heron\nPrice: 10"]),
        ([row("Lamp", "Price", head=True), row("Heron", "10")], ["Lamp: Heron\nPrice: 10"]),
        ([row("Lamp", "Price", head=True)], ["Lamp | Price"]),
        ([row("a", "b", "c"), row("1", "2", "3")], ["a: 1\nb: 2\nc: 3"]),
        ([row("2019", "2020", "2021"), row("1", "2", "3")], ["2019 | 2020 | 2021", "1 | 2 | 3"]),
        ([row("Lamp", "Price", head=True), row("all sold")], ["all sold", "Lamp | Price"]),
        ([f"<w:sdt><w:sdtContent>{row('in', 'side')}</w:sdtContent></w:sdt>"], ["in | side"]),
    ],
)
def test_tables_row_by_row(tmp_path: Path, rows: list[str], texts: list[str]) -> None:
    assert shown(in_body(tmp_path, table(*rows))) == [("lines", text) for text in texts]


def test_a_table_of_one_cell_is_a_frame(tmp_path: Path) -> None:
    cell = f"<w:tc>{paragraph(run('one'))}{paragraph(run('two'))}</w:tc>"
    assert shown(in_body(tmp_path, table(f"<w:tr>{cell}</w:tr>"))) == [("paragraph", "one"), ("paragraph", "two")]


def test_a_table_within_a_cell_is_text_of_the_cell(tmp_path: Path) -> None:
    inner = table(row("1", "2"))
    outer = f"<w:tr><w:tc>{paragraph(run('a'))}</w:tc><w:tc>{inner}{paragraph()}</w:tc></w:tr>"
    assert shown(in_body(tmp_path, table(outer))) == [("lines", "a | 1 | 2")]


# ---------------------------------------------------------------------------------- what cannot be read


def test_a_password_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "a.docx"
    path.write_bytes(word._OLE + bytes(600) + "EncryptedPackage".encode("utf-16-le") + bytes(100))
    with pytest.raises(PasswordNeeded, match="opens only with a password; save a copy without one"):
        blocks_of(path)


def test_an_old_document_under_a_new_name(tmp_path: Path) -> None:
    path = tmp_path / "a.docx"
    path.write_bytes(word._OLE + bytes(600))
    with pytest.raises(DataError, match=r"an old Word document \(.doc\) under a new name; save it as .docx"):
        blocks_of(path)


def test_damage_is_one_line_that_says_why(tmp_path: Path) -> None:
    whole = written(tmp_path, lambda document: None).read_bytes()
    with zipfile.ZipFile(tmp_path / "a.docx", "w") as archive:
        archive.writestr("other.xml", "<a/>")
    none = r"no Word document, whatever it is called; rename it as what it is, or save it as \.docx"
    told = {
        b"PK no zip": r"a Word document that is cut off or damaged; copy it again, or save it again",
        whole[:-200]: r"a Word document that is cut off or damaged; copy it again, or save it again",
        (tmp_path / "a.docx").read_bytes(): r"not readable as a Word document \(.*\); save it again",
        b"I am a text.": none,
        rb"{\rtf1 I am another}": none,
    }
    for data, note in told.items():
        (tmp_path / "b.docx").write_bytes(data)
        with pytest.raises(DataError, match=f"^{note}$"):
            blocks_of(tmp_path / "b.docx")


def test_a_small_file_that_unpacks_to_a_large_one_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, lambda document: None)
    monkeypatch.setattr(word, "MAX_UNPACKED", 1)
    with pytest.raises(DataError, match="unpacks to more than"):
        blocks_of(path)
