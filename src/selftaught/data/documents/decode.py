"""In which encoding a text file is, and the file opened in it.

A byte-order mark says so; valid UTF-8 is hardly ever anything else; HTML may name its encoding. What is left has to be
guessed, and the record says so. No file is held in memory.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from selftaught.data.documents.blocks import Contents
from selftaught.errors import DataError

if TYPE_CHECKING:
    from charset_normalizer import CharsetMatch

_BLOCK = 1 << 20
_SAMPLE = 1 << 16
_MARKS = (  # UTF-32's little-endian mark begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MARK, _WRONG = "selftaught.mark", "\ud800"  # half a character, which no decoder gives; U+FFFD may be the file's own
# In Western text few letters have accents; in Cyrillic, Greek, Hebrew or Chinese nearly all bytes are above 127.
_FEW = 0.4
_WESTERN = ["cp1252", "cp1254", "cp1250", "cp1257"]  # by how often they are met
_OTHERS = ["cp1251", "koi8_r", "cp1253", "cp932", "euc_jp", "gb18030", "big5", "cp949", "cp1255", "cp1256", "cp874"]


def open_text(path: Path, contents: Contents, *, declared: str | None = None, newline: str | None = None) -> TextIO:
    """Opens a text file in the encoding that it is in.

    Args:
        path: the file.
        contents: told if the encoding is a guess, or if characters are damaged.
        declared: the encoding that the document names, if it does.
        newline: as for `open`; None reads every kind of line end as a line feed.

    Returns:
        The open file.

    Raises:
        DataError: it is no text file.
    """
    encoding = _encoding(path, contents, declared)
    return path.open(encoding=encoding, errors="replace", newline=newline)


def _encoding(path: Path, contents: Contents, declared: str | None) -> str:
    with path.open("rb") as file:
        start = file.read(4096)
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            _check(path, encoding, contents)
            return encoding
    if b"\0" in start:
        encoding = _utf16_without_mark(start)
        _check(path, encoding, contents)
        return encoding
    num_wrong, num_others = _count(path, "utf-8")
    if not num_wrong and (num_others or not declared):
        return "utf-8"
    if declared and _is_usable(declared) and not _count(path, declared)[0]:
        return declared
    if num_others > num_wrong:  # UTF-8 with some damage
        _check(path, "utf-8", contents)
        return "utf-8"
    return _guess(path, contents) if num_wrong else "utf-8"


def _check(path: Path, encoding: str, contents: Contents) -> None:
    num_wrong, _ = _count(path, encoding)
    if num_wrong:
        contents.remark(f"{num_wrong} damaged character{'s' if num_wrong > 1 else ''} (no {encoding.upper()}), now �")


def _count(path: Path, encoding: str) -> tuple[int, int]:
    """How many characters of a file an encoding cannot read, and how many beyond ASCII it can."""
    num_wrong = num_others = 0
    for text in _decoded(path, encoding):
        if "\0" in text:
            raise DataError("no text file: it holds NUL characters; rename it as what it is, or save it as text")
        wrong = text.count(_WRONG)
        num_wrong += wrong
        num_others += 0 if text.isascii() else len(text) - len(text.encode("ascii", "ignore")) - wrong
    return num_wrong, num_others


def _marked(error: UnicodeError) -> tuple[str, int]:
    if isinstance(error, UnicodeDecodeError):
        return _WRONG, error.end
    raise error


codecs.register_error(_MARK, _marked)


def _decoded(path: Path, encoding: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(encoding)(_MARK)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield decoder.decode(block)
    yield decoder.decode(b"", final=True)


def _utf16_without_mark(start: bytes) -> str:
    """In UTF-16, nearly every second byte of Latin text is a NUL."""
    even, odd = start[::2].count(0), start[1::2].count(0)
    if 2 * odd > len(start[1::2]) and not even:
        return "utf-16-le"
    if 2 * even > len(start[::2]) and not odd:
        return "utf-16-be"
    raise DataError("no text file: it holds NUL characters; rename it as what it is, or save it as text")


def _is_usable(declared: str) -> bool:
    """Whether a declared encoding can be one: a declaration that reads as ASCII is not in UTF-16."""
    try:
        return not codecs.lookup(declared).name.startswith(("utf-16", "utf-32")) and "a".encode(declared) == b"a"
    except (LookupError, UnicodeError):
        return False


def _guess(path: Path, contents: Contents) -> str:
    """The likeliest encoding of a file that names none."""
    from charset_normalizer import from_bytes

    sample = _telling_lines(path)
    num_high = sum(byte > 127 for byte in sample)
    num_letters = sum(chr(byte).isalpha() for byte in sample if byte < 128)
    is_western = num_high < max(_FEW * (num_high + num_letters), 4)  # of three bytes nobody can tell: the commonest
    matches = from_bytes(sample, cp_isolation=_WESTERN if is_western else _OTHERS + _WESTERN)
    best = matches.best()
    close = [match for match in matches if best and is_western and _is_close(match, best)]
    likely = {name for match in close for name in match.could_be_from_charset if name in _WESTERN}
    first = min(likely, key=_WESTERN.index) if likely else best.encoding if best else "cp1252"
    encoding = next(name for name in (first, "cp1252", "latin-1") if not _count(path, name)[0])  # latin-1 reads all
    contents.remark(f"names no encoding; read as {encoding}")
    return encoding


def _is_close(match: CharsetMatch, best: CharsetMatch) -> bool:
    """Whether a match is as good as the best, but for chance: a page of Italian fits several encodings alike."""
    return match.chaos <= best.chaos + 0.02 and match.coherence >= best.coherence - 0.08


def _telling_lines(path: Path) -> bytes:
    """The first lines that are not plain ASCII."""
    lines: list[bytes] = []
    size = 0
    with path.open("rb") as file:
        while size < _SAMPLE and (line := file.readline(_SAMPLE)):
            if not line.isascii():
                lines.append(line)
                size += len(line)
    return b"".join(lines)
