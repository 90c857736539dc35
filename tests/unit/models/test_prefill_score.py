"""States at completion positions: however prompts are padded, kept or joined, the numbers are one plain pass's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from selftaught.models.load import LanguageModel, load_model
from selftaught.models.prefill import Prefill, PrefillStore, join, prefill, shared_prefix
from selftaught.models.score import student_hidden, teacher_hidden

PROMPTS = [[5, 9, 33, 71, 2, 14], [8], [100, 101, 102], [44, 3, 60, 61, 62, 63, 64, 65]]
COMPLETIONS = [[7, 20, 21], [90, 91, 92, 93, 2], [50], [11, 12]]
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module")
def model(sharp_model: Path) -> LanguageModel:
    return load_model(sharp_model, dtype="float32")


def alone(model: LanguageModel, prompt: Sequence[int], completion: Sequence[int]) -> Tensor:
    """One row, one pass of transformers itself, no padding and no cache."""
    ids = torch.tensor([[*prompt, *completion]])
    with torch.no_grad():
        states = model.plain_model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states[-1]
    return states[0, len(prompt) - 1 : -1]


def reference(model: LanguageModel) -> Tensor:
    return torch.cat([alone(model, p, c) for p, c in zip(PROMPTS, COMPLETIONS, strict=True)])


def assert_same(ours: Prefill, other: Prefill, exactly: bool = True) -> None:
    def equal(a: Tensor, b: Tensor) -> None:
        if exactly:
            assert torch.equal(a, b)
        else:
            torch.testing.assert_close(a, b, **CLOSE)

    assert torch.equal(ours.mask, other.mask)
    equal(ours.last_hidden, other.last_hidden)
    for (keys, values), (other_keys, other_values) in zip(ours.layers, other.layers, strict=True):
        seen = ours.mask[:, None, :, None].bool()  # what lies under the padding is never looked at
        equal(keys * seen, other_keys * seen)
        equal(values * seen, other_values * seen)


def test_left_padding_changes_nothing(model: LanguageModel) -> None:
    batch = prefill(model, PROMPTS)
    assert batch.mask.sum(-1).tolist() == [len(p) for p in PROMPTS]
    for row, prompt in enumerate(PROMPTS):
        single = prefill(model, [prompt])
        torch.testing.assert_close(batch.last_hidden[row], single.last_hidden[0], **CLOSE)
        for (keys, values), (alone_keys, alone_values) in zip(batch.layers, single.layers, strict=True):
            torch.testing.assert_close(keys[row, :, -len(prompt) :], alone_keys[0], **CLOSE)
            torch.testing.assert_close(values[row, :, -len(prompt) :], alone_values[0], **CLOSE)


def test_last_state_is_the_plain_models(model: LanguageModel) -> None:
    batch = prefill(model, PROMPTS)
    for row, prompt in enumerate(PROMPTS):
        torch.testing.assert_close(batch.last_hidden[row], alone(model, prompt, [0])[0], **CLOSE)


def test_joined_rows_equal_a_batch_and_rows_take_them_apart(model: LanguageModel) -> None:
    joined = join([prefill(model, [prompt]) for prompt in PROMPTS])
    assert_same(joined, prefill(model, PROMPTS), exactly=False)
    picked = joined.rows([2, 0])
    assert torch.equal(picked.last_hidden, joined.last_hidden[[2, 0]])
    assert torch.equal(picked.layers[1][0], joined.layers[1][0][[2, 0]])


def test_growing_a_cache_leaves_the_prefill_as_it_was(model: LanguageModel) -> None:
    batch = prefill(model, PROMPTS)
    before = [(keys.clone(), values.clone()) for keys, values in batch.layers]
    first = teacher_hidden(model, batch, COMPLETIONS)
    again = teacher_hidden(model, batch, COMPLETIONS)
    assert torch.equal(first, again)
    for (keys, values), (old_keys, old_values) in zip(batch.layers, before, strict=True):
        assert torch.equal(keys, old_keys) and torch.equal(values, old_values)


# --------------------------------------------------------------------------------------------- store


def bytes_of(model: LanguageModel, prompt: Sequence[int]) -> int:
    return sum(keys.nbytes + values.nbytes for keys, values in prefill(model, [prompt]).layers)


@pytest.mark.parametrize("kept_prompts", [0, 1, 2, 4])
def test_kept_recomputed_and_evicted_prompts_give_the_same_numbers(model: LanguageModel, kept_prompts: int) -> None:
    limit = sum(bytes_of(model, p) for p in PROMPTS[:kept_prompts])
    store = PrefillStore(model, limit)
    expected = join([prefill(model, [p]) for p in PROMPTS])
    for _ in range(3):
        assert_same(store.get(PROMPTS), expected)
        assert store.used_bytes <= limit
    backwards = store.get(PROMPTS[::-1])
    assert_same(backwards, expected.rows([3, 2, 1, 0]))
    assert store.used_bytes <= limit


def test_numbers_do_not_depend_on_what_shares_the_batch(model: LanguageModel) -> None:
    store = PrefillStore(model, 0)
    together, single = store.get(PROMPTS), store.get(PROMPTS[:1])
    length = len(PROMPTS[0])
    assert torch.equal(together.layers[0][0][:1, :, -length:], single.layers[0][0])
    assert torch.equal(together.last_hidden[:1], single.last_hidden)


def test_kept_prompts_are_not_run_again_until_cleared(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    plain = LanguageModel.hidden_states

    def counted(self: LanguageModel, input_ids: Tensor, **options: object) -> object:
        runs.append(input_ids.shape[1])
        return plain(self, input_ids, **options)

    monkeypatch.setattr(LanguageModel, "hidden_states", counted)
    store = PrefillStore(model, 1 << 20)
    store.get(PROMPTS)
    store.get(PROMPTS)
    assert runs == [len(p) for p in PROMPTS]
    assert store.used_bytes == sum(bytes_of(model, p) for p in PROMPTS)
    del runs[:]
    store.clear()
    assert store.used_bytes == 0
    store.get(PROMPTS[:2])
    assert runs == [len(p) for p in PROMPTS[:2]]


def test_the_least_recently_used_prompt_is_dropped(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c = [1, 2, 3], [4, 5, 6], [7, 8, 9]
    store = PrefillStore(model, 2 * bytes_of(model, a))
    store.get([a, b])
    store.get([a])  # b is now the oldest
    store.get([c])
    runs: list[int] = []
    plain = LanguageModel.hidden_states

    def counted(self: LanguageModel, input_ids: Tensor, **options: object) -> object:
        runs.append(int(input_ids[0, 0]))
        return plain(self, input_ids, **options)

    monkeypatch.setattr(LanguageModel, "hidden_states", counted)
    store.get([a, c, b])
    assert runs == [4]


def test_a_cleared_store_sees_the_new_weights(sharp_model: Path) -> None:
    model = load_model(sharp_model, dtype="float32")
    store = PrefillStore(model, 1 << 20)
    old = store.get(PROMPTS)
    with torch.no_grad():
        for weight in model.model.parameters():
            weight.mul_(1.1)
    store.clear()
    new = store.get(PROMPTS)
    assert not torch.allclose(old.last_hidden, new.last_hidden, atol=1e-3)
    assert_same(new, join([prefill(model, [p]) for p in PROMPTS]))


# --------------------------------------------------------------------------------------------- score


def test_teacher_states_equal_one_full_pass(model: LanguageModel) -> None:
    states = teacher_hidden(model, prefill(model, PROMPTS), COMPLETIONS)
    assert states.shape[0] == sum(map(len, COMPLETIONS))
    torch.testing.assert_close(states, reference(model), **CLOSE)
    stored = teacher_hidden(model, PrefillStore(model, 1 << 20).get(PROMPTS), COMPLETIONS)
    torch.testing.assert_close(stored, reference(model), **CLOSE)


def test_student_states_equal_one_full_pass_and_carry_gradient(model: LanguageModel) -> None:
    states = student_hidden(model, PROMPTS, COMPLETIONS)
    torch.testing.assert_close(states, reference(model), **CLOSE)
    assert states.requires_grad
    assert not teacher_hidden(model, prefill(model, PROMPTS), COMPLETIONS).requires_grad


def test_student_states_do_not_depend_on_padding_or_order(model: LanguageModel) -> None:
    order = [3, 1, 0, 2]
    with torch.no_grad():
        forward = student_hidden(model, PROMPTS, COMPLETIONS).split([len(c) for c in COMPLETIONS])
        permuted = student_hidden(model, [PROMPTS[i] for i in order], [COMPLETIONS[i] for i in order])
        singles = [student_hidden(model, [p], [c]) for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
        longer = student_hidden(model, [*PROMPTS, [9] * 40], [*COMPLETIONS, [9] * 10])[: sum(map(len, COMPLETIONS))]
    torch.testing.assert_close(permuted, torch.cat([forward[i] for i in order]), **CLOSE)
    torch.testing.assert_close(torch.cat(singles), torch.cat(forward), **CLOSE)
    torch.testing.assert_close(longer, torch.cat(forward), **CLOSE)


SHARED = {
    "system prompt": [[9, 8, 7, 6, 30], [9, 8, 7, 6, 31, 32, 33], [9, 8, 7, 40], [9, 8, 7, 6, 30, 50]],
    "one begins another": [[9, 8, 7, 6], [9, 8, 7, 6, 5], [9, 8, 7, 6, 5, 4], [9, 8, 7, 6]],
    "all the same": [[9, 8, 7, 6]] * 4,
    "first token": [[9], [9, 1], [9, 2, 3], [9, 4]],
}


@pytest.mark.parametrize("prompts", SHARED.values(), ids=SHARED.keys())
def test_a_shared_beginning_changes_neither_states_nor_gradients(
    sharp_model: Path, monkeypatch: pytest.MonkeyPatch, prompts: list[list[int]]
) -> None:
    monkeypatch.setattr("selftaught.models.prefill.MIN_SHARED", 1)
    assert shared_prefix(prompts) == (0 if len(min(prompts, key=len)) == 1 else 3)
    ours, plain = (load_model(sharp_model, dtype="float32", masters=True) for _ in range(2))
    states = student_hidden(ours, prompts, COMPLETIONS)
    pieces = []
    for prompt, completion in zip(prompts, COMPLETIONS, strict=True):
        output = plain.hidden_states(torch.tensor([[*prompt, *completion]]), use_cache=False)
        pieces.append(output.last_hidden_state[0, len(prompt) - 1 : -1])
    expected = torch.cat(pieces)
    torch.testing.assert_close(states, expected, **CLOSE)
    slope = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    (states * slope).sum().backward()
    (expected * slope).sum().backward()
    for a, b in zip(ours.model.parameters(), plain.model.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-3 * b.grad.abs().max().item())
    with torch.no_grad():
        teachers = teacher_hidden(ours, PrefillStore(ours, 1 << 20).get(prompts), COMPLETIONS)
        batch = teacher_hidden(ours, prefill(ours, prompts), COMPLETIONS)
    torch.testing.assert_close(teachers, expected.detach(), **CLOSE)
    torch.testing.assert_close(batch, expected.detach(), **CLOSE)


def test_completions_of_one_token_need_no_further_pass(model: LanguageModel) -> None:
    ones = [[7], [90], [50], [11]]
    expected = torch.cat([alone(model, p, c) for p, c in zip(PROMPTS, ones, strict=True)])
    torch.testing.assert_close(teacher_hidden(model, prefill(model, PROMPTS), ones), expected, **CLOSE)
    torch.testing.assert_close(student_hidden(model, PROMPTS, ones).detach(), expected, **CLOSE)
