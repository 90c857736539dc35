"""Shares with intervals, and paired comparisons: the same items answered by two models.

Notation of the paired part: of n items b were gained (only the second model is right) and c lost (only the first is);
they are the flips, and (b − c)/n is the change in accuracy. Items that did not flip say nothing about its direction.

Clusters: several items may be wordings of one fact and then stand or fall together, so that n items are worth fewer.
The tests flip whole clusters (`sign_flip_p`); the score interval divides b, c and n by the design effect, the factor
by which clustering widens the variance (Rao & Scott 1992, Biometrics 48:577).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from selftaught.types import ItemResult

Side = Literal["two-sided", "gain", "loss"]
Floats = npt.NDArray[np.float64]
RESAMPLES_AT_ONCE = 256  # bounds the bootstrap's memory: these times the clusters, in float64
HALVINGS = 40  # bisection from a bracket of at most 2 to 2⁻³⁹


# ------------------------------------------------------------------------------------------ one model


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


# ------------------------------------------------------------------------------- did anything change?


def mcnemar_p(gained: int, lost: int, side: Side = "two-sided") -> float:
    """McNemar's exact test: how likely so uneven a split of the flips is if each way is as likely.

    One-sided P = Σ_{k ≥ b} C(b + c, k) 2^−(b + c) for a gain (of c for a loss); two-sided twice the smaller of
    both (McNemar 1947; exact form: Liddell 1983).

    Args:
        gained: b, items that only the second model has right.
        lost: c, items that only the first has right.
        side: "gain": is the second model better? "loss": is it worse? "two-sided": does it differ?

    Returns:
        The p-value in (0, 1]; 1.0 when no item flipped.
    """
    if side == "two-sided":
        return min(1.0, 2 * mcnemar_p(max(gained, lost), min(gained, lost), "gain"))
    flips, hits = gained + lost, gained if side == "gain" else lost
    ways = term = 1  # C(flips, 0): all flips this way; integers, so exact however many
    for others in range(1, flips - hits + 1):
        term = term * (flips - others + 1) // others
        ways += term
    return float(ways / 2**flips)


def sign_flip_p(changes: Iterable[int], side: Side = "two-sided") -> float:
    """McNemar's exact test for clusters, each of which changed by a whole number of items.

    If nothing changed, each cluster's change D_g is as likely to have the other sign: P = P(Σ ±D_g ≥ Σ D_g), over
    all sign patterns (Fisher's randomisation test, 1935). With single items (D_g = ±1) this is `mcnemar_p`.

    Args:
        changes: items gained minus lost, one number a cluster.
        side: as in `mcnemar_p`.

    Returns:
        The p-value in (0, 1]; 1.0 when no cluster changed.
    """
    changes = [change for change in changes if change]
    total = sum(changes)
    if side == "two-sided":
        return min(1.0, 2 * sign_flip_p(changes, "gain" if total > 0 else "loss"))
    chances = np.ones(1)  # of the sum −reach, −reach + 2, …, reach; sums of positive terms, so no digits are lost
    for size, count in Counter(abs(change) for change in changes).items():
        spread = np.zeros(count * size + 1)
        spread[::size] = [math.comb(count, heads) / 2**count for heads in range(count + 1)]
        chances = np.convolve(chances, spread)
    reach = len(chances) - 1
    seen = total if side == "gain" else -total
    return min(1.0, float(chances[(seen + reach) // 2 :].sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number: those ≤ α have a family-wise error of at most α (Holm 1979).

    The i-th smallest of m becomes the largest of (m − j + 1) p_(j) over j ≤ i, at most 1.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, largest = [1.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        largest = max(largest, (len(p_values) - place) * p_values[index])
        adjusted[index] = min(1.0, largest)
    return adjusted


# ---------------------------------------------------------------------------------- by how much, at most?


def score_z(gained: npt.ArrayLike, lost: npt.ArrayLike, total: npt.ArrayLike, change: npt.ArrayLike) -> Floats:
    """How many standard errors the seen change lies above the supposed one, Δ: Tango's score statistic.

    z(Δ) = (b − c − nΔ) / √(n (2q + Δ(1 − Δ))), where q is the likeliest share of lost items if the change is Δ: the
    larger root of 2n q² + ((2n − b + c) Δ − b − c) q − c Δ (1 − Δ) = 0 (Tango 1998, Statistics in Medicine 17:891).
    At Δ = 0 it is McNemar's (b − c)/√(b + c).

    Args:
        gained, lost, total: b, c and n; they need not be whole, and broadcast.
        change: Δ in [−1, 1].

    Returns:
        z, in the broadcast shape; 0 where there is nothing to tell (no items, or no flips and Δ = 0).
    """
    b, c, n, delta = np.broadcast_arrays(
        *(np.asarray(value, dtype=np.float64) for value in (gained, lost, total, change))
    )
    mirrored = delta < 0  # z(b, c, Δ) = −z(c, b, −Δ), and for Δ ≥ 0 no digits cancel below
    b, c, delta, sign = np.where(mirrored, c, b), np.where(mirrored, b, c), np.abs(delta), np.where(mirrored, -1.0, 1.0)
    slope, constant = (2 * n - b + c) * delta - b - c, c * delta * (1 - delta)
    root = np.sqrt(slope**2 + 8 * n * constant)
    with np.errstate(divide="ignore", invalid="ignore"):
        q = np.where(slope > 0, 2 * constant / (root + slope), (root - slope) / (4 * n))
        variance = n * (2 * q + delta * (1 - delta))
        z = sign * (b - c - n * delta) / np.sqrt(variance)
    return np.where(variance > 0, z, 0.0)


def score_interval(
    gained: float, lost: float, total: float, confidence: float = 0.95, design_effect: float = 1.0
) -> tuple[float, float]:
    """The score interval of a change in accuracy: every Δ with |z(Δ)| below the normal quantile (Tango 1998).

    It has a width even when nothing flipped: 0 of n gives ± z²/(n + z²).

    Args:
        gained, lost, total: b, c and n.
        confidence: of both limits together; each alone holds with (1 + confidence)/2.
        design_effect: ≥ 1; divides b, c and n (see `design_effect`).

    Returns:
        (low, high), within [−1, 1]; (−1, 1) if there are no items.
    """
    if not total:
        return -1.0, 1.0
    b, c, n = gained / design_effect, lost / design_effect, total / design_effect
    z, seen = NormalDist().inv_cdf((1 + confidence) / 2), (gained - lost) / total
    outside, inside = np.array([-1.0, 1.0]), np.array([seen, seen])  # z(Δ) falls as Δ grows, so halving finds both
    for _ in range(HALVINGS):
        middle = (outside + inside) / 2
        holds = np.abs(score_z(b, c, n, middle)) < z
        outside, inside = np.where(holds, outside, middle), np.where(holds, middle, inside)
    return float(outside[0]), float(outside[1])


def design_effect(changes: Sequence[float], clusters: Sequence[Hashable]) -> float:
    """By what factor clustering widens the variance of a mean change; n items are worth n / factor independent ones.

    D = (V_between + m²) / (V_alone + m), at least 1, where V_between = G/(G − 1) Σ_g (Σ_{i∈g} (d_i − d̄))² is the
    cluster-robust variance, V_alone = n/(n − 1) Σ_i (d_i − d̄)² what independent items would have, and m = Σ_g m_g²/n
    the size of an average item's cluster (Kish 1965; Rao & Scott 1992). The m terms are ours: one imagined cluster
    that flipped as a whole, so that with few flips, from which nothing can be estimated, D stays near its worst, m.

    Args:
        changes: after minus before, one number an item: −1, 0 or 1 for right and wrong.
        clusters: each item's cluster.

    Returns:
        1 when each item is a cluster of its own; m (or a little more) when clusters are copies of one item.
    """
    total, sizes = len(changes), Counter(clusters)
    if len(sizes) == total:
        return 1.0
    mean_size = sum(size * size for size in sizes.values()) / total
    if len(sizes) == 1:
        return mean_size  # one cluster: nothing to estimate from
    mean = math.fsum(changes) / total
    sums: dict[Hashable, float] = dict.fromkeys(sizes, 0.0)
    for change, cluster in zip(changes, clusters, strict=True):
        sums[cluster] += change - mean
    between = len(sizes) / (len(sizes) - 1) * math.fsum(value * value for value in sums.values())
    alone = total / (total - 1) * math.fsum((change - mean) ** 2 for change in changes)
    return max(1.0, (between + mean_size**2) / (alone + mean_size))


def bootstrap_interval(
    before: Sequence[float],
    after: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile interval of a mean change, whatever the scores; clusters are drawn whole (Efron 1979).

    Unlike the score interval it has no width when nothing changed, so it decides nothing; it serves averages.

    Args:
        before: one model's scores in [0, 1].
        after: the other's, of the same items in the same order.
        clusters: each item's cluster; None: items are independent.
        confidence: of both limits together.
        resamples: how many samples of as many clusters are drawn, with replacement.
        seed: one seed, one interval.

    Returns:
        (low, high) of mean(after) − mean(before).

    Raises:
        ValueError: no items, or the lists differ in length.
    """
    if not before:
        raise ValueError("no items to draw from")
    names = range(len(before)) if clusters is None else clusters
    sums: dict[Hashable, list[float]] = {}
    for old, new, name in zip(before, after, names, strict=True):
        entry = sums.setdefault(name, [0.0, 0.0])
        entry[0] += new - old
        entry[1] += 1
    kinds, counts = np.unique(np.array(list(sums.values())), axis=0, return_counts=True)  # [K, 2]: change, items
    random, means = np.random.default_rng(seed), []
    for start in range(0, resamples, RESAMPLES_AT_ONCE):
        drawn = random.multinomial(len(sums), counts / len(sums), min(RESAMPLES_AT_ONCE, resamples - start)) @ kinds
        means.append(drawn[:, 0] / drawn[:, 1])
    low, high = np.quantile(np.concatenate(means), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


# ------------------------------------------------------------------------------------------ agreement


def cohen_kappa(left: Sequence[bool], right: Sequence[bool]) -> float | None:
    """Agreement of two judges of the same items beyond chance: (p − e) / (1 − e).

    p is the share of items of which they say the same, e the share expected if each judged by its own frequencies alone
    (Cohen 1960, Educational and Psychological Measurement 20:37). None if both always say one thing, or there is none.
    """
    if not left:
        return None
    n = len(left)
    same = sum(a == b for a, b in zip(left, right, strict=True)) / n
    yes = [sum(side) / n for side in (left, right)]
    chance = yes[0] * yes[1] + (1 - yes[0]) * (1 - yes[1])
    return None if chance == 1 else (same - chance) / (1 - chance)
