"""How rows are grouped to be run together."""

from __future__ import annotations

from collections.abc import Sequence


def microbatches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Cuts rows into groups of at most `max_tokens` padded tokens, alike in length so that little is padding.

    A row that is longer than `max_tokens` gets a group of its own.
    """
    groups: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if groups and lengths[groups[-1][0]] * (len(groups[-1]) + 1) <= max_tokens:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups
