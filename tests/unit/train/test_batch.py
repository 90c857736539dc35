"""Which rows a step takes, and how rows are grouped."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from selftaught.models.batching import microbatches
from selftaught.train.batch import batch_indices, row_seed


@settings(max_examples=60, deadline=None)
@given(items=st.integers(1, 30), size=st.integers(1, 40), seed=st.integers(0, 5))
def test_every_item_comes_once_an_epoch(items: int, size: int, seed: int) -> None:
    epochs = 3
    steps = -(-epochs * items // size)
    taken = [index for step in range(steps) for index in batch_indices(items, size, step, seed)]
    assert len(taken) == steps * size
    for epoch in range(epochs):
        assert sorted(taken[epoch * items : (epoch + 1) * items]) == list(range(items))


def test_each_epoch_and_each_seed_has_an_order_of_its_own() -> None:
    epochs = [tuple(batch_indices(20, 20, epoch, seed)) for epoch in range(4) for seed in range(4)]
    assert len(set(epochs)) == 16


def test_a_step_needs_no_state() -> None:
    forwards = [batch_indices(7, 3, step, 1) for step in range(10)]
    assert [batch_indices(7, 3, step, 1) for step in reversed(range(10))] == forwards[::-1]


def test_the_size_of_a_batch_only_cuts_one_stream() -> None:
    stream = [index for step in range(12) for index in batch_indices(5, 1, step, 0)]
    assert [index for step in range(3) for index in batch_indices(5, 4, step, 0)] == stream


def test_row_seeds_differ_and_repeat() -> None:
    keys = [(seed, step, row) for seed in range(3) for step in (-2, -1, 0, 1, 11) for row in (0, 1, 11)]
    seeds = [row_seed(*key) for key in keys]
    assert len(set(seeds)) == len(keys)
    assert seeds == [row_seed(*key) for key in keys]
    assert all(0 <= seed < 2**63 for seed in seeds)


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(1, 50), max_size=30), bound=st.integers(1, 120))
def test_microbatches_partition_the_rows_within_the_bound(lengths: list[int], bound: int) -> None:
    groups = microbatches(lengths, bound)
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    for group in groups:
        padded = max(lengths[row] for row in group) * len(group)
        assert padded <= bound or len(group) == 1


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=30), bound=st.integers(50, 400))
def test_microbatches_group_rows_alike_in_length(lengths: list[int], bound: int) -> None:
    groups = microbatches(lengths, bound)
    spans = [(min(lengths[r] for r in group), max(lengths[r] for r in group)) for group in groups]
    for (low, _), (_, high) in itertools.pairwise(spans):
        assert low >= high, "groups go from long rows to short ones"
    merged = [max(lengths[r] for r in a) * (len(a) + 1) for a in groups[:-1]]
    assert all(size > bound for size in merged), "a group is closed only when one more row would not fit"
