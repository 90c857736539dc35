"""What became of a folder's files, in words: counts, then what a person should look at, the worst first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

WORST_FIRST = ("unreadable", "password", "partly", "empty", "unsupported", "duplicate", "read")
MOST_REASONS = 4  # of one status
MOST_NAMED = 3  # files of one reason
PLENTY = 12  # files; among more than so many it is not told of what each duplicate is one

Record = Mapping[str, Any]


def documents_lines(records: Sequence[Record]) -> list[str]:
    """One line for all files, and one for each status and reason that is not simply "read".

    Args:
        records: of documents, as in `documents.json`.
    """
    by_status: dict[str, dict[str, list[str]]] = {status: defaultdict(list) for status in WORST_FIRST}
    for record in records:
        reason = "of others" if record["status"] == "duplicate" and len(records) > PLENTY else record["note"]
        by_status[record["status"]][reason].append(record["path"])
    counts = {status: sum(map(len, reasons.values())) for status, reasons in by_status.items()}
    num_words, num_pieces = (sum(record[what] for record in records) for what in ("num_words", "num_pieces"))
    listed = ", ".join(f"{counts[status]} {status}" for status in reversed(WORST_FIRST) if counts[status])
    lines = [f"Documents: {listed}; {num_words} words in {num_pieces} piece{'s' * (num_pieces != 1)}."]
    for status, reasons in by_status.items():
        noted = sorted(
            ((why, paths) for why, paths in reasons.items() if why or status != "read"), key=lambda pair: -len(pair[1])
        )
        for why, paths in noted[:MOST_REASONS]:
            lines.append(f"  {_number(len(paths), len(records))}{status}{f' ({why})' if why else ''}: {_named(paths)}")
        if left := sum(len(paths) for _, paths in noted[MOST_REASONS:]):
            lines.append(f"  {left} more {status}, for other reasons")
    return lines


def contexts_line(cut: Sequence[Record]) -> str:
    """Which rows' documents the teacher is not shown whole; empty if it is shown all.

    Args:
        cut: {"id", "shown", "pieces"} of each such row, as in a report's "contexts".
    """
    if not cut:
        return ""
    listed = _named([f"{one['id']} ({one['shown']} of {one['pieces']})" for one in cut])
    whose = "1 row's document is" if len(cut) == 1 else f"{len(cut)} rows' documents are"
    return f"{whose} longer than a prompt may be, and shown in the pieces that fit best: {listed}"


def _number(count: int, total: int) -> str:
    return "" if total == 1 else f"{count} "


def _named(paths: Sequence[str]) -> str:
    """The first few, and how many more."""
    shown = ", ".join(paths[:MOST_NAMED])
    return shown if len(paths) <= MOST_NAMED else f"{shown} and {len(paths) - MOST_NAMED} more"
