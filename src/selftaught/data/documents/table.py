"""Rows of tables: as text for every format that has tables, and CSV files, row by row."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from selftaught.data.documents.blocks import Block, Contents
from selftaught.data.documents.decode import open_text

MAX_CSV_FIELD = 1 << 30  # csv's own limit, 128 KiB, is shorter than many a document


class Rows:
    """The rows of one table, or of several in turn, as texts."""

    def __init__(self) -> None:
        self._header: list[str] = []
        self._is_told = True

    @property
    def has_header(self) -> bool:
        """Whether the columns have names."""
        return bool(self._header)

    def row(self, cells: Sequence[str]) -> str:
        """A row as lines "column: value", without its empty cells.

        Args:
            cells: the row's. Where they are not as many as the columns, some were merged, and nobody knows which is
                whose: then the row is one line.

        Returns:
            The row's text; empty if all cells are.
        """
        if self._header and len(self._header) == len(cells):
            self._is_told = True
            pairs = [(name, cell) for name, cell in zip(self._header, cells) if cell.strip()]
            return "\n".join(f"{name}: {cell}" if name else cell for name, cell in pairs)
        return " | ".join(cell for cell in cells if cell.strip())

    def head(self, header: Sequence[str]) -> Iterator[str]:
        """Names the columns from here on; yields the names before if no row has told them."""
        if not self._is_told:
            yield " | ".join(name for name in self._header if name)
        self._header, self._is_told = list(header), not any(header)

    def end(self) -> Iterator[str]:
        """Ends the table."""
        yield from self.head([])


def read_table(path: Path, contents: Contents) -> Iterator[Block]:
    """The rows of a CSV or TSV file, the first of which names the columns."""
    with open_text(path, contents, newline="") as file:
        delimiter = "\t" if path.suffix.lower() == ".tsv" else _delimiter(file)
        records = _records(file, delimiter)
        header = [name.strip() for name in next(records, [])]
        rows = Rows()
        for cells in records:
            names = [name or f"column {number}" for number, name in enumerate(header, start=1)]
            names += [f"column {number}" for number in range(len(names) + 1, len(cells) + 1)]
            list(rows.head(names))
            yield Block("lines", rows.row([*cells, *[""] * (len(names) - len(cells))]))
        if header and not rows.has_header:
            contents.remark("a header without rows")
            yield Block("lines", "\n".join(header))


def _delimiter(file: TextIO) -> str:
    """Of the header, whichever parts it most often; a comma if none does."""
    line = file.readline(1 << 16)
    file.seek(0)
    fields = {delimiter: len(next(csv.reader([line], delimiter=delimiter), [])) for delimiter in ",;\t|"}
    return max(fields, key=lambda delimiter: fields[delimiter])


def _records(file: TextIO, delimiter: str) -> Iterator[list[str]]:
    """Records that are not blank. Quotes that are not closed are forgiven: what follows is one long field."""
    reader = csv.reader(file, delimiter=delimiter)
    while True:
        limit = csv.field_size_limit(MAX_CSV_FIELD)
        try:
            cells = next(reader)
        except StopIteration:
            return
        finally:
            csv.field_size_limit(limit)
        if any(cell.strip() for cell in cells):
            yield cells
