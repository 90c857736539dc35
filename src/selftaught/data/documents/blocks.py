"""What every reader yields: the blocks of a document, in their order, one at a time."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from selftaught.errors import DataError

Kind = Literal["heading", "paragraph", "item", "lines", "section", "page"]

MAX_BLOCK = 1 << 20  # characters; a longer run of lines without a blank one is passed on in parts

# Hints for display, which are no text; and control characters, which no later format may hold.
_DROPPED = dict.fromkeys([0x00AD, 0xFEFF])
_CONTROLS = {code: " " for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"}
_NOT_TEXT = _DROPPED | _CONTROLS


@dataclass(frozen=True)
class Block:
    """One thing that a document consists of.

    Attributes:
        kind: "heading"; "paragraph", whose line ends mean nothing; "item" of a list, a paragraph that stands close to
            the items beside it; "lines", whose line ends mean something (code, verse, a table's row); "section",
            a heading that is told of, by a PDF's outline, and not in the text; "page", where one begins, without text.
        text: of a paragraph or a heading, on one line.
        level: of a heading or section, from 1.
        page: from 1; None where the format has no pages.
    """

    kind: Kind
    text: str = ""
    level: int = 0
    page: int | None = None


@dataclass
class Contents:
    """What a reader finds out on its way, beside the blocks.

    Attributes:
        title: the document's own.
        num_pages: set before the first block, if there are pages.
        blank_pages: the numbers of those without text.
        failed_pages: the numbers of those that could not be read.
        remarks: what a person should know, each once.
    """

    title: str | None = None
    num_pages: int | None = None
    blank_pages: list[int] = field(default_factory=list)
    failed_pages: list[int] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def remark(self, text: str) -> None:
        """Notes something that a person should know."""
        if text not in self.remarks:
            self.remarks.append(text)


class PasswordNeeded(DataError):
    """The document opens only with a password."""


def cleaned(block: Block) -> Block | None:
    """A block in the form that `Block` promises; None if nothing is left of it."""
    if block.kind == "page":
        return block
    text = block.text.translate(_NOT_TEXT).encode("utf-8", "replace").decode("utf-8")  # halves of characters: "?"
    if block.kind == "lines":
        text = re.sub(r"\A(?:[^\S\n]*\n)+", "", "\n".join(line.rstrip() for line in text.split("\n"))).rstrip()
    else:
        text = " ".join(text.split())
    return Block(block.kind, text, block.level, block.page) if text else None


def one_line(error: BaseException) -> str:
    """An error's message, as it may stand in a note."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + "…"
