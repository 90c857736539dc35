"""How rows are grouped to be run together."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def microbatches(lengths: Sequence[int], max_tokens: int, apart: Sequence[Hashable] | None = None) -> list[list[int]]:
    """Cuts rows into groups of at most `max_tokens` padded tokens, alike in length so that little is padding.

    A row that is longer than `max_tokens` gets a group of its own.

    Args:
        lengths: tokens of each row.
        max_tokens: of a group.
        apart: only rows that are equal in this (their prompts, which are then run once) share a group.
    """
    keys = apart or [None] * len(lengths)
    rank = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    groups: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (rank[keys[row]], -lengths[row])):
        fits = groups and lengths[groups[-1][0]] * (len(groups[-1]) + 1) <= max_tokens
        if fits and keys[groups[-1][0]] == keys[row]:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups
