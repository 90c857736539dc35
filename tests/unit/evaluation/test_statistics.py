"""Intervals and tests, against published values and independent references."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftaught.evaluation.statistics import Share, mcnemar_p, shares_by_group
from selftaught.types import ItemResult


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0000, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_equals_published_values(correct: int, total: int, low: float, high: float) -> None:
    """Newcombe 1998, Statistics in Medicine 17, table I, method 3."""
    assert Share(correct, total).interval == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


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


def results(flags: tuple[bool, ...]) -> list[ItemResult]:
    return [ItemResult(str(number), "direct", "", flag) for number, flag in enumerate(flags)]


def reference(gained: int, lost: int) -> Fraction:
    """The mass of all splits of the flipped items that are no likelier than the one seen."""
    flipped = gained + lost
    seen = comb(flipped, gained)
    return Fraction(sum(c for c in (comb(flipped, k) for k in range(flipped + 1)) if c <= seen), 2**flipped)


@pytest.mark.parametrize(("gained", "lost"), list(product(range(9), range(9))))
def test_mcnemar_equals_a_binomial_reference(gained: int, lost: int) -> None:
    both = (True, False) * 3
    before = results((False,) * gained + (True,) * lost + both)
    after = results((True,) * gained + (False,) * lost + both)
    assert mcnemar_p(before, after) == pytest.approx(float(reference(gained, lost)))
    assert mcnemar_p(before, reversed(after)) == mcnemar_p(after, before)


def test_mcnemar_of_one_sided_flips() -> None:
    """Ten flips, all one way: 2 · 2⁻¹⁰."""
    assert mcnemar_p(results((False,) * 10), results((True,) * 10)) == pytest.approx(2 / 1024)
    assert mcnemar_p([], []) == 1
