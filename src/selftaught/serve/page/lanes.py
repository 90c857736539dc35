"""Where the versions stand in the drawing of their lineage, and which lines join them.

Rows are versions, the newest first. What is in force stands in lane 0; each other branch keeps a lane of its own as
long as it needs one, so that lines never cross a version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """One row of the drawing.

    Attributes:
        lane: of the version, from 0.
        through: lanes of lines that pass by.
        joins: lanes of lines that come down from later versions and end here.
    """

    lane: int
    through: tuple[int, ...]
    joins: tuple[int, ...]


def places(versions: Sequence[tuple[int, int | None]], in_force: set[int]) -> list[Place]:
    """The drawing.

    Args:
        versions: number and parent of each, the newest first, with every parent among them.
        in_force: HEAD's number, and those of the versions that it descends from.

    Returns:
        A row a version.
    """
    rows = {number: row for row, (number, _) in enumerate(versions)}
    lanes: dict[int, int] = {}
    busy: dict[int, int] = {}  # of a lane: the row down to which it is taken
    for number, parent in versions:
        row, end = rows[number], rows.get(parent, rows[number]) if parent is not None else rows[number]
        if number in in_force:
            lanes[number] = 0
        elif number not in lanes:
            lanes[number] = next(lane for lane in range(1, len(rows) + 1) if busy.get(lane, -1) <= row)
        if number not in in_force:
            busy[lanes[number]] = end
            if parent is not None and parent not in in_force:
                lanes.setdefault(parent, lanes[number])
    lines = [(lanes[number], rows[number], rows[parent]) for number, parent in versions if parent is not None]
    return [
        Place(
            lane=lanes[number],
            through=tuple(sorted({lane for lane, top, bottom in lines if top < rows[number] < bottom})),
            joins=tuple(sorted({lane for lane, _, bottom in lines if bottom == rows[number]})),
        )
        for number, _ in versions
    ]
