"""Our attention against the textbook's, torch's, and whole models that run either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from largest_tensor import LargestTensor
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    StaticCache,
)

from selftaught.models import attention
from selftaught.models.attention import attention_forward, causal_attention, use_fast_attention

ALIKE = {"rtol": 1e-5, "atol": 1e-5}
SHAPES = [  # rows, query heads, key heads, queries, keys, head size
    (2, 4, 4, 7, 7, 8),
    (2, 6, 2, 7, 7, 8),
    (1, 3, 1, 16, 16, 4),
    (2, 6, 3, 5, 11, 8),
    (3, 4, 2, 1, 6, 8),
    (1, 2, 1, 13, 14, 4),
]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks of queries, the last one shorter; and the types that tests can compare exactly."""
    monkeypatch.setattr(attention, "BLOCK_QUERIES", 4)
    monkeypatch.setattr(attention, "FAST_TYPES", (torch.bfloat16, torch.float32))


def inputs(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    rows, query_heads, key_heads, queries, keys, size = shape
    generator = torch.Generator().manual_seed(sum(shape))

    def random(heads: int, length: int) -> Tensor:  # laid out as a model's projections are
        values = torch.randn(rows, length, heads, size, generator=generator).to(dtype)
        return values.transpose(1, 2).requires_grad_()

    return [random(query_heads, queries), random(key_heads, keys), random(key_heads, keys)]


def seen(queries: int, keys: int) -> Tensor:
    return torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)


def textbook(query: Tensor, key: Tensor, value: Tensor, scaling: float | None = None) -> Tensor:
    """Every head's softmax over all keys, in plain sight."""
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = scores.masked_fill(~seen(query.shape[2], key.shape[2]), -torch.inf)
    return (scores.softmax(-1) @ value).transpose(1, 2)


def torchs(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    mask = None if query.shape[2] == key.shape[2] else seen(query.shape[2], key.shape[2])
    out = F.scaled_dot_product_attention(query, key, value, mask, is_causal=mask is None, enable_gqa=True)
    return out.transpose(1, 2)


def with_gradients(function: Any, tensors: list[Tensor]) -> list[Tensor]:
    out = function(*tensors)
    pull = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, tensors, pull)]


@pytest.mark.parametrize("kept_keys", [0, 512], ids=["recomputed", "kept"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("reference", [textbook, torchs])
def test_equals_the_textbook_and_torchs(
    reference: Any, shape: tuple[int, ...], kept_keys: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "KEPT_KEYS", kept_keys)
    tensors = inputs(shape)
    for ours, expected in zip(
        with_gradients(causal_attention, tensors), with_gradients(reference, tensors), strict=True
    ):
        torch.testing.assert_close(ours, expected, **ALIKE)


@pytest.mark.parametrize("kept_keys", [0, 512], ids=["recomputed", "kept"])
def test_gradients_pass_a_numerical_check(kept_keys: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "KEPT_KEYS", kept_keys)
    assert torch.autograd.gradcheck(causal_attention, (*inputs((1, 4, 2, 6, 9, 3), torch.float64), 0.7))


@pytest.mark.parametrize("shape", [(2, 6, 2, 64, 64, 64), (2, 6, 2, 24, 64, 32), (1, 3, 1, 96, 96, 64)], ids=str)
@pytest.mark.parametrize("sharpness", [1.0, 4.0])
def test_bfloat16_is_about_as_exact_as_torchs(
    shape: tuple[int, ...], sharpness: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "BLOCK_QUERIES", 48)
    tensors = inputs(shape, torch.bfloat16)
    with torch.no_grad():
        tensors[0] *= sharpness
    exact = with_gradients(textbook, [x.detach().double().requires_grad_() for x in tensors])
    ours, torch_s = with_gradients(causal_attention, tensors), with_gradients(torchs, tensors)
    for our, other, true in zip(ours, torch_s, exact, strict=True):
        assert our.dtype == torch.bfloat16
        error, allowed = (our.double() - true).norm(), (other.double() - true).norm()
        assert error < 2 * allowed
        assert error < 0.02 * true.norm()


def test_no_query_sees_a_later_key() -> None:
    query, key, value = inputs((2, 4, 2, 9, 12, 8))
    before = causal_attention(query, key, value)
    with torch.no_grad():
        key[:, :, 8:] += 1
        value[:, :, 8:] -= 1
    after = causal_attention(query, key, value)
    assert torch.equal(before[:, :5], after[:, :5]), "query 4 stands at position 7"
    assert not torch.isclose(before[:, 5:], after[:, 5:]).all(-1).any()


def test_all_queries_times_all_keys_are_never_held() -> None:
    tensors = inputs((2, 4, 2, 64, 64, 2))
    with LargestTensor() as ours:
        with_gradients(causal_attention, tensors)
    with LargestTensor() as control:
        with_gradients(textbook, tensors)
    assert control.numel == 2 * 4 * 64 * 64, "the recorder sees what it should"
    assert ours.numel == 2 * 4 * 4 * 64


# -------------------------------------------------------------------------------------- whole models


def tiny(model: Any, config: Any, **options: int) -> Any:
    torch.manual_seed(0)
    shape = {"vocab_size": 50, "hidden_size": 24, "intermediate_size": 32, "num_attention_heads": 6}
    return model(config(**shape, num_key_value_heads=2, **options)).eval()


def llama() -> LlamaForCausalLM:
    return tiny(LlamaForCausalLM, LlamaConfig, num_hidden_layers=3)


def sliding() -> MistralForCausalLM:
    return tiny(MistralForCausalLM, MistralConfig, num_hidden_layers=2, sliding_window=3)


def ids(rows: int, length: int) -> Tensor:
    return torch.randint(50, (rows, length), generator=torch.Generator().manual_seed(rows + length))


def plain(model: PreTrainedModel) -> Tensor:
    return model(ids(3, 11), use_cache=False).logits


def padded(model: PreTrainedModel) -> Tensor:
    mask = torch.ones(3, 11, dtype=torch.long)
    mask[1, :4] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    return model(ids(3, 11), attention_mask=mask, position_ids=positions, use_cache=False).logits[mask.bool()]


def padded_nowhere(model: PreTrainedModel) -> Tensor:
    return model(ids(3, 11), attention_mask=torch.ones(3, 11, dtype=torch.long), use_cache=False).logits


def after_a_prefix(model: PreTrainedModel) -> Tensor:
    cache = model(ids(1, 6), past_key_values=DynamicCache(), use_cache=True).past_key_values
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys.expand(3, -1, -1, -1), layer.values.expand(3, -1, -1, -1)
    return model(ids(3, 9), past_key_values=cache, use_cache=True).logits


def after_a_padded_prefix(model: PreTrainedModel) -> Tensor:
    mask = torch.ones(2, 6 + 9, dtype=torch.long)
    mask[1, :4] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = model(ids(2, 6), attention_mask=mask[:, :6], position_ids=positions[:, :6], use_cache=True)
    return model(
        ids(2, 9), attention_mask=mask, position_ids=positions[:, 6:], past_key_values=cache.past_key_values
    ).logits


def token_by_token(model: PreTrainedModel) -> Tensor:
    cache, tokens = DynamicCache(), ids(2, 6)
    return torch.cat([model(tokens[:, [t]], past_key_values=cache, use_cache=True).logits for t in range(6)], dim=1)


def in_a_static_cache(model: PreTrainedModel) -> Tensor:
    """Its keys are longer than what has been written: the queries do not stand at their end."""
    return model(ids(2, 7), past_key_values=StaticCache(config=model.config, max_cache_len=12), use_cache=True).logits


def packed(model: PreTrainedModel) -> Tensor:
    """Two texts in one row: the second starts anew at position 0."""
    return model(ids(1, 11), position_ids=torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5]]), use_cache=False).logits


USES = [plain, padded, padded_nowhere, after_a_prefix, after_a_padded_prefix, token_by_token]
CASES = [(make, use) for make in (llama, sliding) for use in USES]
CASES += [(llama, in_a_static_cache), (llama, packed)]


@pytest.mark.parametrize(("make", "use"), CASES, ids=lambda function: function.__name__)
@pytest.mark.parametrize("other", ["eager", "sdpa"])
def test_a_model_says_and_learns_the_same(other: str, make: Any, use: Any) -> None:
    ours, theirs = make(), make()
    use_fast_attention(ours)
    theirs.set_attn_implementation(other)
    assert ours.config._attn_implementation == attention.NAME
    logits, expected = use(ours), use(theirs)
    torch.testing.assert_close(logits, expected, **ALIKE)
    with torch.no_grad():
        torch.testing.assert_close(use(ours), expected.detach(), **ALIKE)
    for out in (logits, expected):
        out.log_softmax(-1)[..., 7].sum().backward()
    for our_weight, their_weight in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(our_weight.grad, their_weight.grad, rtol=1e-4, atol=2e-5)


def by(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, **options: Any) -> str:
    """What computes it."""
    layer = nn.Module()
    layer.num_key_value_groups = query.shape[1] // key.shape[1]
    return attention_forward(layer, query, key, value, mask, **options)[0].grad_fn.name()


def test_it_runs_where_it_is_meant_to_and_only_there() -> None:
    tensors = inputs((2, 4, 2, 6, 6, 8))
    assert "_CausalAttention" in by(*tensors)
    assert "_CausalAttention" in by(*inputs((2, 4, 2, 6, 9, 8)))
    assert "_CausalAttention" not in by(*inputs((2, 4, 2, 1, 9, 8)))
    assert "_CausalAttention" not in by(*tensors, seen(6, 6))
    assert "_CausalAttention" not in by(*tensors, dropout=0.5)
    assert "_CausalAttention" not in by(*tensors, is_causal=False)
    assert "_CausalAttention" not in by(*tensors, position_bias=torch.zeros(1, 4, 6, 6))
    assert "_CausalAttention" not in by(*(x.double() for x in tensors))


def test_types_and_queries_it_does_not_take_see_the_same_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "FAST_TYPES", ())
    query, key, value = inputs((2, 4, 2, 5, 9, 8))
    layer = nn.Module()
    layer.num_key_value_groups = 2
    assert "_CausalAttention" not in by(query, key, value)
    torch.testing.assert_close(attention_forward(layer, query, key, value, None)[0], textbook(query, key, value))


def test_other_models_are_left_as_they_are() -> None:
    eager = llama()
    eager.set_attn_implementation("eager")
    use_fast_attention(eager)
    assert eager.config._attn_implementation == "eager"
    use_fast_attention(nn.Linear(2, 2))


def test_a_saved_model_does_not_name_it(tmp_path: Path) -> None:
    model = llama()
    use_fast_attention(model)
    model.save_pretrained(tmp_path)
    assert attention.NAME not in (tmp_path / "config.json").read_text()
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config._attn_implementation == "sdpa"
