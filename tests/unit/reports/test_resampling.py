from __future__ import annotations

import random
from statistics import fmean, quantiles

import numpy as np
import pytest

from selftaught.reports.resampling import (
    average,
    backward_transfer,
    draw,
    estimate,
    forgetting,
    over_few,
    ratio,
    t_quantile,
)

# R[i][j] after three stages, by hand
MATRIX = np.array([[0.6, 0.1, 0.2], [0.7, 0.5, 0.2], [0.3, 0.4, 0.8]])


def test_measures_by_hand() -> None:
    skills = MATRIX[None, None]
    assert average(skills) == pytest.approx(np.array([[0.5]])), "(0.3 + 0.4 + 0.8) / 3"
    assert backward_transfer(skills) == pytest.approx(np.array([[-0.2]])), "(0.3 - 0.6 + 0.4 - 0.5) / 2"
    assert forgetting(skills) == pytest.approx(np.array([[0.25]])), "(0.7 - 0.3 + 0.5 - 0.4) / 2"


def test_gaining_afterwards_is_positive_transfer_and_negative_forgetting() -> None:
    skills = np.array([[0.4, 0.0], [0.6, 0.5]])[None, None]
    assert backward_transfer(skills).item() == pytest.approx(0.2)
    assert forgetting(skills).item() == pytest.approx(-0.2)


def test_ratio_to_nothing_has_no_value() -> None:
    found = estimate(ratio(np.ones(101), np.zeros(101)))
    assert found == {"value": None, "low": None, "high": None}
    seldom = np.array([0.5] * 90 + [0.0] * 11)  # in 11 of 100 draws there is nothing to divide by
    assert estimate(ratio(np.full(101, 0.25), seldom)) == {"value": 0.5, "low": 0.5, "high": None}


def answers(seed: int, items: int, share: float) -> list[bool]:
    noise, hardness = random.Random(seed), random.Random(0)
    return [0.6 * hardness.random() + 0.4 * noise.random() < share for _ in range(items)]


def test_intervals_agree_with_a_plain_bootstrap() -> None:
    items, base = 40, answers(99, 40, 0.3)
    runs = {
        method: {seed: answers(10 * place + seed, items, share) for seed in range(3)}
        for place, (method, share) in enumerate([("a", 0.6), ("b", 0.45)])
    }
    stages = {method: {seed: [{"s": row}] for seed, row in rows.items()} for method, rows in runs.items()}
    draws = draw({"s": base}, stages, {"s": range(items)})
    last = {method: draws.over_seeds(method, draws.stages[method]["s"])[:, 0] for method in runs}

    plain, differences, noise = [], [], random.Random(7)
    for _ in range(4000):
        drawn, seeds = noise.choices(range(items), k=items), noise.choices(range(3), k=3)
        means = {m: fmean(fmean(rows[seed][item] for item in drawn) for seed in seeds) for m, rows in runs.items()}
        plain.append(means["a"])
        differences.append(means["a"] - means["b"])
    for ours, theirs in ((last["a"], plain), (last["a"] - last["b"], differences)):
        found, cuts = estimate(ours), quantiles(theirs, n=40)
        assert found["low"] == pytest.approx(cuts[0], abs=0.02)
        assert found["high"] == pytest.approx(cuts[-1], abs=0.02)
    assert estimate(last["a"])["value"] == pytest.approx(fmean(fmean(row) for row in runs["a"].values()))


def test_one_seed_leaves_the_items_alone_to_vary() -> None:
    row = answers(1, 60, 0.5)
    draws = draw({"s": row}, {"a": {5: [{"s": row}]}}, {"s": range(60)})
    assert np.array_equal(draws.over_seeds("a", draws.stages["a"]["s"])[:, 0], draws.base["s"]), "paired with the base"
    assert estimate(draws.base["s"] - draws.stages["a"]["s"][:, 0, 0]) == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_methods_with_the_same_seeds_share_their_draws() -> None:
    good, bad = [True] * 10, [False] * 10
    chains = {0: [{"s": good}], 1: [{"s": bad}]}
    draws = draw({"s": good}, {"a": chains, "b": chains, "c": {0: [{"s": good}], 2: [{"s": bad}]}}, {"s": range(10)})
    assert draws.seeds["a"] is draws.seeds["b"]
    assert not np.array_equal(draws.seeds["a"], draws.seeds["c"])


def test_clusters_are_drawn_whole() -> None:
    row = [True] * 20 + [False] * 20
    alone = estimate(draw({"s": row}, {}, {"s": range(40)}).base["s"])
    whole = draw({"s": row}, {}, {"s": [index // 10 for index in range(40)]}).base["s"]
    together = estimate(whole)
    assert set(np.round(whole, 6)) == {0.0, 0.25, 0.5, 0.75, 1.0}, "four clusters, all right or all wrong"
    assert together["value"] == alone["value"] == 0.5
    assert (together["low"], together["high"]) == (0.0, 1.0)
    assert alone["low"] is not None and alone["low"] > 0.3


def test_clusters_of_unlike_sizes_keep_a_share_a_share() -> None:
    row = [True] * 9 + [False]
    drawn = draw({"s": row}, {}, {"s": [0] * 9 + [1]}).base["s"]
    assert drawn[0] == 0.9 and set(np.round(drawn, 6)) == {0.0, 0.9, 1.0}


def test_intervals_hold_what_they_promise() -> None:
    held, noise = 0, np.random.default_rng(3)
    for _ in range(120):
        hardness = noise.normal(0, 1, 80)
        seeds = noise.normal(0, 0.1, (3, 1))  # three points of accuracy
        right = hardness + seeds + noise.normal(0, 0.7, (3, 80)) > 0
        chains = {seed: [{"s": row.tolist()}] for seed, row in enumerate(right)}
        draws = draw({"s": chains[0][0]["s"]}, {"a": chains}, {"s": range(80)}, num_draws=500)
        found = estimate(draws.over_seeds("a", draws.stages["a"]["s"])[:, 0])
        assert found["low"] is not None and found["high"] is not None
        held += found["low"] <= 0.5 <= found["high"]
    assert held >= 108, "95% of 120, less what chance takes"


def test_few_values_get_students_interval() -> None:
    assert over_few([0.3]) == {"value": 0.3, "low": None, "high": None}
    found = over_few([0.1, 0.2, 0.3])
    assert found["value"] == pytest.approx(0.2)
    assert found["high"] == pytest.approx(0.2 + 4.3027 * 0.1 / 3**0.5, abs=1e-4)
    assert found["low"] == 0.0, "a divergence is never negative"
    assert [t_quantile(freedom) for freedom in (1, 9, 10, 30)] == pytest.approx([12.706, 2.262, 2.228, 2.042], abs=3e-3)
