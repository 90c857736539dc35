"""Files and hub data sets, read row by row into examples.

A reader turns its source into numbered rows of plain Python values; `validate` turns each row into
an `Example`. What is wrong with one row (a broken JSON line, a CSV line with a field too many)
travels in the row's place, so that all problems are counted and the first one is told.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from selftaught.data.validate import SPLITS, Register, check_columns, example_of
from selftaught.errors import DataError
from selftaught.types import Example, Scorer, Split

HUB_ID = re.compile(r"(?P<name>[\w-][\w.-]*/[\w-][\w.-]*)(?::(?P<split>\S+))?")
# A missing "data/train.txt" looks like a hub id as well; these suffixes never mean one.
OTHER_FILES = (".txt", ".tsv", ".xls", ".xlsx", ".xml", ".yaml", ".toml", ".md", ".html", ".gz", ".zip", ".zst", ".pkl")
MAX_CSV_FIELD = 1 << 30  # csv's own limit, 128 KiB, is shorter than many a document


@dataclass(frozen=True)
class Row:
    """One row of a source: its number, its place in words, and its cells, or what is wrong with it."""

    number: int
    place: str
    cells: Any


def load_examples(source: str | Path, *, scorer: Scorer | None = None) -> list[Example]:
    """Reads a data set into examples.

    Each row is one of: `messages`; `prompt` + `completion`; `prompt` + `privileged_context`;
    `question` + `answer`. A row that fits several is read as the first of them. Optional columns:
    `system`, `context`, `id`, `answers`, `scorer`, `group`, `split`, `source_document`. Blank text counts as absent.

    Args:
        source: a .jsonl, .json, .csv or .parquet file, or a hub data set as "owner/name" (its train
            split) or "owner/name:split". Rows of a hub split called test, validation or eval are
            test rows unless they say otherwise. "paper:science", "paper:tools" and "paper:medical" are the
            paper's skills, "paper:science=SOURCE" the same from elsewhere; see `data.paper`.
        scorer: the scorer of rows that name none.

    Returns:
        The examples, in the order of the source.

    Raises:
        DataError: the source cannot be read, holds no rows, or has a row that is not usable.
    """
    if isinstance(source, str) and source.startswith("paper:"):
        from selftaught.data.paper import load_named

        return load_named(source)
    rows, default_split, from_hub = _open(source)
    register = Register()
    examples: list[Example] = []
    problems: list[str] = []
    for row in rows:
        try:
            if isinstance(row.cells, DataError):
                raise row.cells
            example = example_of(row.cells, row.number, default_split, scorer)
            if not from_hub:
                check_columns(row.cells)
            register.add(example, row.place)
            examples.append(example)
        except DataError as error:
            problems.append(f"{source}, {row.place}: {error}")
    if problems:
        raise DataError(problems[0] + _and_more(len(problems) - 1))
    if not examples:
        raise DataError(f"{source}: holds no rows; give it at least one")
    return examples


def _and_more(count: int) -> str:
    return f" (and {count} more row{'s' if count > 1 else ''} with problems)" if count else ""


def _open(source: str | Path) -> tuple[Iterator[Row], Split, bool]:
    """The rows of a source, the split of those that name none, and whether it is the hub's, where columns are many."""
    path = Path(source)
    suffix = path.suffix.lower()
    if isinstance(source, str) and suffix not in READERS and suffix not in OTHER_FILES and not _exists(path):
        match = HUB_ID.fullmatch(source)
        if match:
            split = match["split"] or "train"
            return _hub_rows(source, match["name"], split), SPLITS.get(split.partition("[")[0], "train"), True
    _check_file(path)
    if suffix not in READERS:
        raise DataError(f"{path}: {suffix or 'no suffix'} is not a format we read; use one of {', '.join(READERS)}")
    with _readable_errors(path):
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty; give it at least one row")
    return READERS[suffix](path), "train", False


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _check_file(path: Path) -> None:
    if not _exists(path):
        raise DataError(f"{path}: no such file; check the path (a hub data set is written owner/name)")
    if not path.is_file():
        raise DataError(f"{path}: is a folder, not a file; name a file in it")


@contextmanager
def _readable_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or _one_line(error)
        raise DataError(f"{path}: cannot be read ({reason}); check the file and your rights to it") from error


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:200] + "…"


# ------------------------------------------------------------------------------------- text formats


def _read_text(path: Path) -> str:
    with _readable_errors(path):
        data = path.read_bytes()
    mark = b"\xef\xbb\xbf"
    start = len(mark) if data.startswith(mark) else 0
    try:
        return data[start:].decode("utf-8")
    except UnicodeDecodeError as error:
        offset = start + error.start
        line = data.count(b"\n", 0, offset) + 1
        raise DataError(f"{path}, line {line}: not UTF-8 at byte offset {offset}; save the file as UTF-8") from error


def _jsonl_rows(path: Path) -> Iterator[Row]:
    # Not splitlines(): JSON text may hold U+2028 and its like unescaped.
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if line.strip():
            yield Row(number, f"line {number}", _json_line(line))


def _json_line(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        return DataError(
            f"not valid JSON ({error.msg} at column {error.colno}); each line must hold one whole JSON object"
        )
    except (ValueError, RecursionError) as error:
        return DataError(f"not usable JSON ({_one_line(error)}); each line must hold one whole JSON object")


def _json_rows(path: Path) -> Iterator[Row]:
    text = _read_text(path)
    hint = "write [row, row, …], or name the file .jsonl if each line is one row"
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {error.lineno}: not valid JSON ({error.msg} at column {error.colno}); {hint}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not usable JSON ({_one_line(error)}); {hint}") from error
    if not isinstance(rows, list):
        raise DataError(f"{path}: does not hold a list of rows; {hint}")
    for number, row in enumerate(rows, start=1):
        yield Row(number, f"row {number}", row)


def _csv_rows(path: Path) -> Iterator[Row]:
    text = _read_text(path)
    if "\0" in text:  # Python 3.10's csv stops here with an error of its own
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{path}, line {line}: holds a NUL byte; remove it or save the file as text again")
    records = _csv_records(text)
    header = _csv_header(path, next(records, None))
    for number, (line, fields) in enumerate(records, start=1):
        yield Row(number, f"row {number} (line {line})", _csv_cells(header, fields))


def _csv_records(text: str) -> Iterator[tuple[int, list[str] | DataError]]:
    """Records with the line each begins on; blank lines are skipped. What csv cannot read ends them."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        limit = csv.field_size_limit(MAX_CSV_FIELD)
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, DataError(f"not valid CSV ({error}); check the quotes, and double each quote inside a field")
            return
        finally:
            csv.field_size_limit(limit)
        if fields:
            yield line, fields


def _csv_header(path: Path, record: tuple[int, list[str] | DataError] | None) -> list[str]:
    if record is None:
        raise DataError(f"{path}: holds no rows; give it a header line and at least one row")
    line, fields = record
    if isinstance(fields, DataError):
        raise DataError(f"{path}, line {line}: {fields}")
    names = [name.strip() for name in fields]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}, line {line}: column {twice!r} occurs twice; give each column a name of its own")
    if len(names) == 1 and (";" in names[0] or "\t" in names[0]):
        raise DataError(f"{path}, line {line}: the fields are not separated by commas; save it as CSV with commas")
    return names


def _csv_cells(header: list[str], fields: list[str] | DataError) -> Any:
    if isinstance(fields, DataError):
        return fields
    if len(fields) != len(header):
        return DataError(
            f"has {len(fields)} field{'s' if len(fields) != 1 else ''} where the header has {len(header)}; "
            "put quotes around a field that holds a comma"
        )
    cells: dict[str, Any] = dict(zip(header, fields, strict=True))
    if cells.get("answers", "").strip():
        cells["answers"] = [answer.strip() for answer in cells["answers"].split("|")]
    return cells


# ------------------------------------------------------------------------------- Parquet and the hub


def _parquet_rows(path: Path) -> Iterator[Row]:
    parquet = import_module("pyarrow.parquet")  # comes with datasets; neither ships types
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(use_threads=False):
                for cells in batch.to_pylist():
                    number += 1
                    yield Row(number, f"row {number}", cells)
    except (OSError, ValueError, TypeError, LookupError, RuntimeError, MemoryError) as error:  # arrow's are among these
        raise DataError(
            f"{path}, after row {number}: not readable as Parquet ({_one_line(error)}); write the file again"
        ) from error


def _hub_rows(source: str, name: str, split: str) -> Iterator[Row]:
    datasets = import_module("datasets")
    try:
        rows = datasets.load_dataset(name, split=split)
        for number, cells in enumerate(rows, start=1):
            yield Row(number, f"row {number}", cells)
    except Exception as error:  # anything may come out of the network and a data set's own files
        raise DataError(
            f"{source}: no such file, and as a hub data set it cannot be loaded ({_one_line(error)}); "
            "check the name, the split and the network, or save it as JSONL and name that file"
        ) from error


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _jsonl_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}
