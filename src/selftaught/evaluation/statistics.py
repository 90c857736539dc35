"""Shares with intervals, and paired comparisons."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

from selftaught.types import ItemResult


@dataclass(frozen=True)
class Share:
    """`correct` of `total`, with a 95% Wilson interval."""

    correct: int
    total: int

    @property
    def value(self) -> float:
        """correct / total; 0 of 0 is 0."""
        return self.correct / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The Wilson score interval at 95% (Wilson 1927)."""
        if not self.total:
            return 0.0, 1.0
        z, n, p = NormalDist().inv_cdf(0.975), self.total, self.value
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, centre - half), min(1.0, centre + half)

    def as_dict(self) -> dict[str, float]:
        """For a report."""
        low, high = self.interval
        return {"correct": self.correct, "total": self.total, "value": self.value, "low": low, "high": high}


def shares_by_group(results: Iterable[ItemResult]) -> dict[str, Share]:
    """Accuracy of each group, in the order in which groups first appear."""
    counts: dict[str, list[int]] = {}
    for result in results:
        count = counts.setdefault(result.group, [0, 0])
        count[0] += result.correct
        count[1] += 1
    return {group: Share(correct, total) for group, (correct, total) in counts.items()}


def mcnemar_p(before: Iterable[ItemResult], after: Iterable[ItemResult]) -> float:
    """Two-sided exact McNemar test: how likely so uneven a split of flipped items is if nothing changed.

    Args:
        before: one model's results.
        after: another's, on the same items (matched by id).

    Returns:
        The p-value; 1.0 when no item flipped.
    """
    old = {result.id: result.correct for result in before}
    gained = lost = 0
    for result in after:
        gained += result.correct and not old[result.id]
        lost += old[result.id] and not result.correct
    flipped, smaller = gained + lost, min(gained, lost)
    tail = float(sum(math.comb(flipped, k) for k in range(smaller + 1)) / 2**flipped)
    return min(1.0, 2 * tail)
