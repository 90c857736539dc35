"""Which reader reads which files."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path

from selftaught.data.documents.blocks import Block, Contents, cleaned, one_line
from selftaught.data.documents.html import read_html
from selftaught.data.documents.pdf import read_pdf
from selftaught.data.documents.plain import read_markdown, read_text
from selftaught.data.documents.table import read_table
from selftaught.data.documents.word import read_word
from selftaught.errors import DataError

Reader = Callable[[Path, Contents], Iterator[Block]]

READERS: dict[str, Reader] = {
    "text": read_text,
    "markdown": read_markdown,
    "html": read_html,
    "pdf": read_pdf,
    "word": read_word,
    "table": read_table,
}
FORMATS = {
    ".txt": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".pdf": "pdf",
    ".docx": "word",
    ".csv": "table",
    ".tsv": "table",
}


def format_of(path: Path) -> str:
    """The format of a file, by its suffix; empty if we have no reader for it."""
    return FORMATS.get(path.suffix.lower(), "")


def read_blocks(path: Path, format: str, contents: Contents) -> Generator[Block, None, None]:
    """The blocks of one document, cleaned, as they are read.

    Args:
        path: the file.
        format: which of `READERS` reads it.
        contents: told what is found out on the way.

    Yields:
        The blocks, in order.

    Raises:
        DataError: it cannot be read, for the reason that is the message, without the path; `PasswordNeeded` if a
            password is what is lacking.
    """
    try:
        for block in READERS[format](path, contents):
            clean = cleaned(block)
            if clean is not None:
                yield clean
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"cannot be opened ({error.strerror or one_line(error)}); check your rights to it") from error
    except Exception as error:  # what a library raises on a damaged file is nobody's promise
        raise DataError(f"damaged ({type(error).__name__}: {one_line(error)}); save it again") from error
