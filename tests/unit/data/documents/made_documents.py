"""Real documents, made here: PDF written by hand, or closed by pypdf; Word by python-docx."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from pathlib import Path

from pypdf import PdfReader, PdfWriter
from pypdf.generic import IndirectObject

from selftaught.data.documents.blocks import Block, Contents
from selftaught.data.documents.readers import format_of, read_blocks

Outline = Sequence[tuple[str, int, int]]  # title, page, index of the parent or -1


def pdf_bytes(pages: Sequence[Sequence[str] | None], title: str = "") -> bytes:
    """A PDF whose pages hold these lines; None is a page without text, with a line drawn on it."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"", b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for lines in pages:
        content = b"72 72 m 300 300 l S" if lines is None else _text(lines)
        packed = zlib.compress(content)
        head = b"<< /Length %d /Filter /FlateDecode >>\nstream\n" % len(packed)
        objects.append(head + packed + b"\nendstream")
        resources = b"/Resources << /Font << /F1 3 0 R >> >>"
        page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] %s /Contents %d 0 R >>"
        objects.append(page % (resources, len(objects)))
        kids.append(b"%d 0 R" % len(objects))
    objects[1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(kids), b" ".join(kids))
    objects.append(b"<< /Title (%s) >>" % _escaped(title))
    return _file(objects, info=len(objects))


def _text(lines: Sequence[str]) -> bytes:
    shown = b" ".join(b"(%s) Tj T*" % _escaped(line) for line in lines)
    return b"BT /F1 11 Tf 14 TL 72 720 Td " + shown + b" ET"


def _escaped(text: str) -> bytes:
    return text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)").encode("cp1252")


def _file(objects: Sequence[bytes], info: int) -> bytes:
    """Numbered objects, the table of where they are, and the trailer."""
    out = bytearray(b"%PDF-1.7\n")
    places = []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    trailer = b"trailer << /Size %d /Root 1 0 R /Info %d 0 R >>\nstartxref\n%d\n%%%%EOF"
    return bytes(out + trailer % (len(objects) + 1, info, table))


def write_pdf(path: Path, pages: Sequence[Sequence[str] | None], title: str = "", outline: Outline = ()) -> Path:
    """Writes a PDF, with an outline of titles on pages (from 1)."""
    data = pdf_bytes(pages, title)
    if outline:
        writer = PdfWriter(clone_from=PdfReader(io.BytesIO(data)))
        made: list[IndirectObject] = []
        for name, page, parent in outline:
            above = None if parent < 0 else made[parent]
            made.append(writer.add_outline_item(title=name, page_number=page - 1, parent=above))
        data = _written(writer)
    path.write_bytes(data)
    return path


def write_locked_pdf(
    path: Path, pages: Sequence[Sequence[str] | None], user_password: str, algorithm: str = "RC4-128"
) -> Path:
    """Writes a PDF that is encrypted."""
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf_bytes(pages))))
    writer.encrypt(user_password, "the owner's", algorithm=algorithm)
    path.write_bytes(_written(writer))
    return path


def _written(writer: PdfWriter) -> bytes:
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def blocks_of(path: Path) -> tuple[list[Block], Contents]:
    """What the reader of a file yields, and what it finds out."""
    contents = Contents()
    return list(read_blocks(path, format_of(path), contents)), contents


def shown(path: Path) -> list[tuple[str, str]]:
    """Kinds and texts of a file's blocks; a heading's kind with its level."""
    blocks, _ = blocks_of(path)
    return [(block.kind + (str(block.level) if block.level else ""), block.text) for block in blocks]
