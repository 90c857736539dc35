"""Which rows a step takes, and how rows are grouped."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from selftaught.models.batching import microbatches
from selftaught.processes import ProcessGroup
from selftaught.train.batch import batch_indices, dealt, row_seed


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


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(1, 50), st.sampled_from("abc")), max_size=30),
    bound=st.integers(1, 120),
)
def test_rows_that_are_to_be_apart_share_no_group(rows: list[tuple[int, str]], bound: int) -> None:
    lengths, prompts = [length for length, _ in rows], [prompt for _, prompt in rows]
    groups = microbatches(lengths, bound, prompts)
    assert sorted(row for group in groups for row in group) == list(range(len(rows)))
    for group in groups:
        assert len({prompts[row] for row in group}) == 1
        assert max(lengths[row] for row in group) * len(group) <= bound or len(group) == 1
    for prompt in set(prompts):  # each as if it were alone
        own = [row for row in range(len(rows)) if prompts[row] == prompt]
        alone = [[own[row] for row in group] for group in microbatches([lengths[row] for row in own], bound)]
        assert [group for group in groups if prompts[group[0]] == prompt] == alone


@settings(max_examples=100, deadline=None)
@given(indices=st.lists(st.integers(0, 20), max_size=30), size=st.integers(1, 6))
def test_a_batch_is_dealt_evenly_and_whole(indices: list[int], size: int) -> None:
    hands = [dealt(indices, ProcessGroup(rank, size)) for rank in range(size)]
    assert sorted(place for hand in hands for place in hand) == list(range(len(indices)))
    assert max(map(len, hands)) - min(map(len, hands)) <= 1
    for hand in hands:  # copies of a row lie side by side
        rows = [indices[place] for place in hand]
        assert sum(a != b for a, b in itertools.pairwise(rows)) == max(len(set(rows)) - 1, 0)


def test_a_row_mostly_goes_to_the_same_process() -> None:
    owners: list[list[int]] = [[] for _ in range(48)]
    for step in range(30):  # ten epochs
        indices = batch_indices(48, 16, step, 0)
        for rank in range(2):
            for place in dealt(indices, ProcessGroup(rank, 2)):
                owners[indices[place]].append(rank)
    stayed = sum(max(ranks.count(0), ranks.count(1)) for ranks in owners)
    assert stayed > 0.8 * 48 * 10, "at random it would be 0.62"
