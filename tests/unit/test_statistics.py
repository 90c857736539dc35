"""Intervals and tests, against published values and independent references."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product
from math import comb
from statistics import NormalDist
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selftaught.statistics import (
    Share,
    Side,
    bootstrap_interval,
    cohen_kappa,
    design_effect,
    holm,
    mcnemar_p,
    score_interval,
    score_z,
    shares_by_group,
    sign_flip_p,
)
from selftaught.types import ItemResult

SIDES: tuple[Side, ...] = get_args(Side)


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0000, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_equals_published_values(correct: int, total: int, low: float, high: float) -> None:
    """Newcombe 1998, Statistics in Medicine 17, table I, method 3."""
    assert Share(correct, total).interval == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@settings(deadline=None)  # the machine may be busy
@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_solves_its_equation(share: tuple[int, int]) -> None:
    """Its ends are the p for which the observed share lies just 1.96 standard errors of p away."""
    correct, total = share
    value = correct / total
    low, high = Share(correct, total).interval
    assert 0 <= low <= value + 1e-12
    assert value - 1e-12 <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            assert (value - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / total, rel=1e-5, abs=1e-12)
    mirrored = Share(total - correct, total).interval
    assert mirrored == (pytest.approx(1 - high), pytest.approx(1 - low))


def test_share() -> None:
    assert Share(0, 0).value == 0
    assert Share(0, 0).interval == (0, 1)
    share = Share(3, 4).as_dict()
    assert (share["correct"], share["total"], share["value"]) == (3, 4, 0.75)
    assert 0 < share["low"] < 0.75 < share["high"] < 1


def test_groups_keep_their_order() -> None:
    results = [ItemResult(str(n), group, "", n % 2 == 0) for n, group in enumerate(["b", "a", "b", "c"])]
    assert list(shares_by_group(results).items()) == [("b", Share(2, 2)), ("a", Share(0, 1)), ("c", Share(0, 1))]
    assert shares_by_group([]) == {}


# ------------------------------------------------------------------------------------------------ tests


def reference(gained: int, lost: int) -> Fraction:
    """The mass of all splits of the flipped items that are no likelier than the one seen."""
    flipped = gained + lost
    seen = comb(flipped, gained)
    return Fraction(sum(c for c in (comb(flipped, k) for k in range(flipped + 1)) if c <= seen), 2**flipped)


@pytest.mark.parametrize(("gained", "lost"), list(product(range(9), range(9))))
def test_mcnemar_equals_a_binomial_reference(gained: int, lost: int) -> None:
    assert mcnemar_p(gained, lost) == pytest.approx(float(reference(gained, lost)))
    assert mcnemar_p(gained, lost) == mcnemar_p(lost, gained)
    flipped = gained + lost
    upper = Fraction(sum(comb(flipped, k) for k in range(gained, flipped + 1)), 2**flipped)
    assert mcnemar_p(gained, lost, "gain") == pytest.approx(float(upper))
    assert mcnemar_p(lost, gained, "loss") == mcnemar_p(gained, lost, "gain")


def test_mcnemar_of_one_sided_flips() -> None:
    """Ten flips, all one way: 2⁻¹⁰, and 2 · 2⁻¹⁰."""
    assert mcnemar_p(10, 0, "gain") == 1 / 1024
    assert mcnemar_p(10, 0) == 2 / 1024
    assert mcnemar_p(10, 0, "loss") == 1
    assert mcnemar_p(0, 0) == mcnemar_p(0, 0, "gain") == 1
    assert 0 < mcnemar_p(400, 600, "loss") < 1e-9


@settings(deadline=None)
@given(st.lists(st.integers(-4, 4), max_size=9))
def test_flipping_clusters_equals_all_sign_patterns(changes: list[int]) -> None:
    sums = [sum(c * sign for c, sign in zip(changes, signs)) for signs in product((-1, 1), repeat=len(changes))]
    gain = sum(s >= sum(changes) for s in sums) / len(sums)
    loss = sum(s <= sum(changes) for s in sums) / len(sums)
    assert sign_flip_p(changes, "gain") == pytest.approx(gain)
    assert sign_flip_p(changes, "loss") == pytest.approx(loss)
    assert sign_flip_p(changes) == pytest.approx(min(1, 2 * min(gain, loss)))


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(0, 200))
def test_flipping_single_items_is_mcnemar(gained: int, lost: int) -> None:
    changes = [1] * gained + [-1] * lost + [0]
    for side in SIDES:
        assert sign_flip_p(changes, side) == pytest.approx(mcnemar_p(gained, lost, side), rel=1e-9)


def test_copies_of_items_do_not_make_a_test_more_certain() -> None:
    assert sign_flip_p([3] * 8 + [-3] * 2, "gain") == pytest.approx(mcnemar_p(8, 2, "gain"))
    assert mcnemar_p(24, 6, "gain") < 0.02 < mcnemar_p(8, 2, "gain")


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []


# ------------------------------------------------------------------------------------- score interval


@pytest.mark.parametrize(
    ("gained", "lost", "total", "low", "high"),
    [
        (6, 16, 161, -0.1240, -0.0054),  # Cavo et al. 2012
        (3, 0, 3, -0.1230, 1.0),
        (0, 3, 3, -1.0, 0.1230),
    ],
)
def test_score_interval_equals_published_values(gained: int, lost: int, total: int, low: float, high: float) -> None:
    """R's contingencytables 3.0, Tango_asymptotic_score_CI_paired_2x2 (Fagerland, Lydersen & Laake 2017, ch. 8)."""
    assert score_interval(gained, lost, total) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def likeliest_z(gained: int, lost: int, total: int, change: float) -> float:
    """The score statistic with the likeliest share of lost items searched for, instead of solved for."""
    low, high = max(0.0, -change), (1 - change) / 2

    def log_likelihood(q: float) -> float:
        terms = ((gained, q + change), (lost, q), (total - gained - lost, 1 - 2 * q - change))
        return sum(count * math.log(max(chance, 1e-300)) for count, chance in terms if count)

    for _ in range(200):  # it is concave: ternary search
        left, right = low + (high - low) / 3, high - (high - low) / 3
        low, high = (left, high) if log_likelihood(left) < log_likelihood(right) else (low, right)
    variance = total * (2 * low + change * (1 - change))
    return (gained - lost - total * change) / math.sqrt(variance)


@pytest.mark.parametrize("change", [-0.6, -0.2, -0.03, -0.001, 0.004, 0.05, 0.3])
@pytest.mark.parametrize(("gained", "lost", "total"), [(0, 0, 50), (7, 0, 50), (0, 7, 50), (5, 9, 60), (20, 3, 30)])
def test_score_is_that_of_the_likeliest_parameters(gained: int, lost: int, total: int, change: float) -> None:
    z = float(score_z(gained, lost, total, change))
    assert z == pytest.approx(likeliest_z(gained, lost, total, change), rel=1e-5, abs=1e-5)


@st.composite
def tables(draw: st.DrawFn, most: int = 3000) -> tuple[int, int, int]:
    total = draw(st.integers(1, most))
    gained = draw(st.integers(0, total))
    return gained, draw(st.integers(0, total - gained)), total


@settings(deadline=None)
@given(tables(), st.floats(0.5, 0.999))
def test_score_interval_solves_its_equation(table: tuple[int, int, int], confidence: float) -> None:
    gained, lost, total = table
    low, high = score_interval(gained, lost, total, confidence)
    seen = (gained - lost) / total
    assert -1 <= low <= seen <= high <= 1
    assert low < high
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    for end, wanted in ((low, z), (high, -z)):
        if abs(end) < 1 - 1e-9:
            assert float(score_z(gained, lost, total, end)) == pytest.approx(wanted, abs=1e-5)
    mirrored = score_interval(lost, gained, total, confidence)
    assert mirrored == (pytest.approx(-high, abs=1e-12), pytest.approx(-low, abs=1e-12))


@settings(deadline=None)
@given(tables())
def test_score_falls_as_the_supposed_change_grows(table: tuple[int, int, int]) -> None:
    z = score_z(*table, np.linspace(-0.999, 0.999, 400))
    assert (np.diff(z) <= 1e-9).all()


def test_score_at_the_edges() -> None:
    assert float(score_z(30, 12, 200, 0)) == pytest.approx((30 - 12) / math.sqrt(42))  # McNemar's
    assert float(score_z(0, 0, 200, 0)) == 0
    assert float(score_z(0, 0, 0, -0.03)) == 0
    assert score_interval(0, 0, 0) == (-1, 1)


@pytest.mark.parametrize("total", [1, 40, 400, 3000])
def test_no_flip_does_not_prove_no_change(total: int) -> None:
    square = NormalDist().inv_cdf(0.975) ** 2
    width = square / (total + square)
    assert score_interval(0, 0, total) == (pytest.approx(-width), pytest.approx(width))


@pytest.mark.parametrize(
    ("discordance", "change"), [(0.02, 0.0), (0.10, 0.0), (0.05, -0.03), (0.10, -0.03), (0.3, 0.2)]
)
def test_score_interval_covers_as_it_says(discordance: float, change: float) -> None:
    """4000 families of 400 items; the standard error is 0.35 points."""
    random = np.random.default_rng(0)
    chances = [(discordance + change) / 2, (discordance - change) / 2, 1 - discordance]
    counts = random.multinomial(400, chances, 4000)
    z, limit = score_z(counts[:, 0], counts[:, 1], 400, change), NormalDist().inv_cdf(0.975)
    assert 0.94 < np.mean(np.abs(z) < limit) < 0.97
    assert np.mean(z > limit) < 0.035  # each side by itself
    assert np.mean(z < -limit) < 0.035


# ------------------------------------------------------------------------------- clusters and bootstrap


@pytest.mark.parametrize(("gained", "lost", "total"), [(60, 90, 1000), (100, 100, 1500), (40, 15, 400)])
def test_bootstrap_agrees_where_flips_are_many(gained: int, lost: int, total: int) -> None:
    before, after = items(gained, lost, total)
    low, high = score_interval(gained, lost, total)
    assert bootstrap_interval(before, after) == (pytest.approx(low, abs=0.003), pytest.approx(high, abs=0.003))


def test_bootstrap_agrees_where_items_are_clustered() -> None:
    """Facts in four wordings each, of which half flip as one."""
    random = np.random.default_rng(0)
    single = random.choice([1, -1, 0], (400, 4), p=[0.05, 0.07, 0.88])
    changes = np.where(random.random((400, 1)) < 0.5, single[:, :1], single).ravel()
    clusters = np.repeat(np.arange(400), 4).tolist()
    effect = design_effect(changes.tolist(), clusters)
    assert 2 < effect < 3  # 1 + 3 · 0.5
    low, high = score_interval(int((changes > 0).sum()), int((changes < 0).sum()), 1600, design_effect=effect)
    before, after = (changes < 0).astype(float).tolist(), (changes > 0).astype(float).tolist()
    drawn = bootstrap_interval(before, after, clusters)
    assert drawn == (pytest.approx(low, abs=0.002), pytest.approx(high, abs=0.002))
    assert drawn[1] - drawn[0] > 1.3 * np.ptp(bootstrap_interval(before, after))


def test_bootstrap_of_scores() -> None:
    random = np.random.default_rng(1)
    before, change = random.random(300), random.normal(0.1, 0.2, 300)
    low, high = bootstrap_interval(before.tolist(), (before + change).tolist())
    half = 1.96 * change.std(ddof=1) / math.sqrt(300)
    assert (low, high) == (
        pytest.approx(change.mean() - half, abs=0.003),
        pytest.approx(change.mean() + half, abs=0.003),
    )
    assert bootstrap_interval([0.5, 1.0], [0.5, 1.0]) == (0, 0)
    scores = before.tolist(), (before + change).tolist()
    first, second, same = (bootstrap_interval(*scores, resamples=500, seed=seed) for seed in (0, 1, 0))
    assert first == same
    assert first != second
    with pytest.raises(ValueError, match="no items"):
        bootstrap_interval([], [])
    with pytest.raises(ValueError):
        bootstrap_interval([1.0], [])


@settings(deadline=None, max_examples=50)
@given(tables(most=200), st.integers(2, 5))
def test_copies_never_narrow_an_interval(table: tuple[int, int, int], copies: int) -> None:
    gained, lost, total = table
    changes = [1] * gained + [-1] * lost + [0] * (total - gained - lost)
    assert design_effect(changes, range(total)) == 1
    effect = design_effect(changes * copies, list(range(total)) * copies)
    assert effect >= copies * (1 - 1e-12)
    low, high = score_interval(gained, lost, total)
    copied = score_interval(gained * copies, lost * copies, total * copies, design_effect=effect)
    assert copied[0] <= low + 1e-9
    assert copied[1] >= high - 1e-9


def test_design_effect_of_unrelated_wordings_is_small() -> None:
    random = np.random.default_rng(2)
    changes = random.choice([1, -1, 0], 6000, p=[0.05, 0.05, 0.9]).tolist()
    assert 1 <= design_effect(changes, [item // 4 for item in range(6000)]) < 1.1


def test_design_effect_without_flips_is_its_worst() -> None:
    """Clusters of 1, 2 and 3: an average item's has (1 + 4 + 9)/6."""
    assert design_effect([0] * 6, "abbccc") == pytest.approx(14 / 6)
    assert design_effect([1, 0, -1], "aaa") == 3
    assert design_effect([], []) == 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([-1, 0, 1]), st.integers(0, 9)), min_size=1, max_size=60))
def test_design_effect_is_at_least_one(rows: list[tuple[int, int]]) -> None:
    changes, clusters = [change for change, _ in rows], [cluster for _, cluster in rows]
    assert design_effect(changes, clusters) >= 1


def items(gained: int, lost: int, total: int) -> tuple[list[float], list[float]]:
    """Scores before and after."""
    before = [0.0] * gained + [1.0] * lost + [1.0, 0.0] * total
    after = [1.0] * gained + [0.0] * lost + [1.0, 0.0] * total
    return before[:total], after[:total]


# ------------------------------------------------------------------------------------------ agreement


def test_kappa_of_a_worked_example() -> None:
    """50 grant proposals: both say yes to 20, no to 15; 5 and 10 the other ways (Wikipedia, "Cohen's kappa")."""
    left = [True] * 20 + [True] * 5 + [False] * 10 + [False] * 15
    right = [True] * 20 + [False] * 5 + [True] * 10 + [False] * 15
    assert cohen_kappa(left, right) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("left", "right", "kappa"),
    [([1, 0, 1], [1, 0, 1], 1.0), ([1, 0], [0, 1], -1.0), ([1, 1, 0, 0], [1, 0, 1, 0], 0.0)],
)
def test_kappa_of_full_opposite_and_chance_agreement(left: list[int], right: list[int], kappa: float) -> None:
    assert cohen_kappa([bool(x) for x in left], [bool(x) for x in right]) == pytest.approx(kappa)


def test_kappa_has_no_value_where_both_say_one_thing_or_nothing() -> None:
    assert cohen_kappa([True, True], [True, True]) is None
    assert cohen_kappa([], []) is None
