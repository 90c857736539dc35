"""Intervals of what several seeds answered to the same items, by the pigeonhole bootstrap.

Seeds are resampled, and items, each on their own (Owen 2007, Annals of Applied Statistics 1:386): a score varies
with both, and neither is nested in the other. Every method, stage and seed gets the same resampled items, and
methods with the same seeds get the same resampled seeds, so that differences between them are paired.

Shapes: B draws, S seeds, N stages, K skills. Draw 0 is the data as it is: what is computed from the draws is
computed for the data on the way, by the same code.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Estimate = dict[str, float | None]

NUM_DRAWS = 4000
SEED = 0
DIGITS = 12  # beyond them is rounding
NOTHING = 0.5 * 10**-DIGITS
T_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)  # Student's at 97.5%, by freedom from 1


@dataclass(frozen=True)
class Draws:
    """Accuracies in every draw.

    Attributes:
        base: of the untaught model, by suite: [B].
        stages: of the taught ones, by method and suite: [B, S, N].
        seeds: by method, how often each seed was drawn: [B, S], rows add up to S.
    """

    base: Mapping[str, Floats]
    stages: Mapping[str, Mapping[str, Floats]]
    seeds: Mapping[str, Floats]

    def over_seeds(self, method: str, values: Floats) -> Floats:
        """The mean over seeds: [B, S, …] → [B, …]."""
        mean: Floats = np.einsum("bs,bs...->b...", self.seeds[method], values) / values.shape[1]
        return mean

    def skills(self, method: str, order: Sequence[str]) -> Floats:
        """Every skill's accuracy after every stage: [B, S, N, K]."""
        return np.stack([self.stages[method][name] for name in order], axis=-1)


def draw(
    base: Mapping[str, Sequence[bool]],
    stages: Mapping[str, Mapping[int, Sequence[Mapping[str, Sequence[bool]]]]],
    clusters: Mapping[str, Sequence[Hashable]],
    num_draws: int = NUM_DRAWS,
) -> Draws:
    """Resamples items and seeds.

    Args:
        base: by suite, whether the untaught model got each item right.
        stages: the same by method, seed and stage.
        clusters: by suite, each item's cluster; those of one cluster are drawn together.
        num_draws: how many samples.
    """
    random = np.random.default_rng(SEED)
    accuracy: dict[str, dict[str, Floats]] = {method: {} for method in stages}
    plain: dict[str, Floats] = {}
    for suite, answers in base.items():
        counts = _item_counts(random, clusters[suite], num_draws)
        total = counts.sum(axis=1)
        plain[suite] = counts @ np.asarray(answers, dtype=np.float64) / total
        for method, chains in stages.items():
            right = np.array([[stage[suite] for stage in chain] for chain in chains.values()], dtype=np.float64)
            accuracy[method][suite] = np.einsum("bi,sni->bsn", counts, right, optimize=True) / total[:, None, None]
    shared: dict[tuple[int, ...], Floats] = {}
    for chains in stages.values():
        if tuple(chains) not in shared:
            shared[tuple(chains)] = _counts(random, len(chains), num_draws)
    return Draws(plain, accuracy, {method: shared[tuple(chains)] for method, chains in stages.items()})


def _counts(random: np.random.Generator, number: int, num_draws: int) -> Floats:
    """How often each of some equal things is drawn, with replacement; once each in draw 0. Whole, so sums are exact."""
    drawn = random.multinomial(number, np.full(number, 1 / number), num_draws)
    return np.vstack([np.ones((1, number)), drawn])


def _item_counts(random: np.random.Generator, clusters: Sequence[Hashable], num_draws: int) -> Floats:
    """How often each item is drawn, if clusters are drawn whole: [B, items]."""
    places = {name: place for place, name in enumerate(dict.fromkeys(clusters))}
    return _counts(random, len(places), num_draws)[:, [places[name] for name in clusters]]


# ------------------------------------------------------------------------------------- measures


def average(skills: Floats) -> Floats:
    """Mean accuracy over all skills after the last stage: [B, S, N, K] → [B, S]."""
    mean: Floats = skills[:, :, -1].mean(axis=-1)
    return mean


def backward_transfer(skills: Floats) -> Floats:
    """How much later stages changed what was learned: mean over j < N of R[N][j] − R[j][j]."""
    own = np.einsum("bsjj->bsj", skills)
    change: Floats = (skills[:, :, -1] - own)[:, :, :-1].mean(axis=-1)
    return change


def forgetting(skills: Floats) -> Floats:
    """How far skills fell from their best: mean over j < N of max over j ≤ i < N of R[i][j], minus R[N][j]."""
    earlier = range(skills.shape[-1] - 1)
    falls = [skills[:, :, j:-1, j].max(axis=-1) - skills[:, :, -1, j] for j in earlier]
    mean: Floats = np.mean(falls, axis=0)
    return mean


def ratio(above: Floats, below: Floats) -> Floats:
    """above / below; infinite where there is nothing to divide by, so that a limit may turn out to be unknown."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below > NOTHING, above / below, np.inf)


# ------------------------------------------------------------------------------------ intervals


def estimate(values: Floats) -> Estimate:
    """The data's value and the middle 95% of the draws': [B] → numbers; what is infinite is None."""
    low, high = np.quantile(values[1:], [0.025, 0.975], method="nearest")  # does not compute with infinities
    return {"value": _finite(values[0]), "low": _finite(low), "high": _finite(high)}


def over_few(values: Sequence[float], least: float = 0.0) -> Estimate:
    """The mean of a few seeds' values, none below `least`, with Student's t interval; none for a single seed."""
    mean = fmean(values)
    if len(values) < 2:
        return {"value": mean, "low": None, "high": None}
    half = t_quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return {"value": mean, "low": max(least, mean - half), "high": mean + half}


def t_quantile(freedom: int) -> float:
    """Student's t at 97.5%."""
    if freedom <= len(T_QUANTILES):
        return T_QUANTILES[freedom - 1]
    z = NormalDist().inv_cdf(0.975)  # Cornish and Fisher's expansion; within 0.003 from here on
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def _finite(value: float) -> float | None:
    return round(float(value), DIGITS) if math.isfinite(value) else None
