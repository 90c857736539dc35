"""Causal attention for training on a processor, several times faster there than torch's own.

On a CPU, torch's `scaled_dot_product_attention` hardly uses the matrix instructions in its backward pass, and has
keys and values repeated for every query head. Here the G query heads that share a key head are rows of one matrix,
and everything is a few batched products. With scale c and the causal triangle M (0 or −∞), for a block of queries:

    P = softmax(c·Q Kᵀ + M)     O = P V
    dV = Pᵀ dO     dP = dO Vᵀ     dS = c·P ∘ (dP − rowsum(P ∘ dP))     dQ = dS K     dK = dSᵀ Q

Scores and softmax are float32. Whatever this is not made for (padding, sliding windows, dropout, one query, other
types and devices) goes to torch's.

Legend: B rows, A heads of the queries, K heads of the keys and values (A = G·K), T queries, S ≥ T keys, D head size;
query i stands at position S − T + i. A block has n queries, which see the first e keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

NAME = "selftaught"
BLOCK_QUERIES = 128
KEPT_KEYS = 512  # up to so many keys, probabilities are kept for the backward pass; beyond, computed again
FAST_TYPES = (torch.bfloat16,)  # in float32, torch's is as fast
FOREIGN_OPTIONS = ("position_bias", "softcap", "cache")  # that change what is computed


def use_fast_attention(model: nn.Module) -> None:
    """Has a transformers model on the CPU compute this attention; leaves any other as it is."""
    from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

    if not isinstance(model, PreTrainedModel) or model.device.type != "cpu":
        return
    if model.config._attn_implementation != "sdpa" or not model._can_set_attn_implementation():
        return
    AttentionInterface.register(NAME, attention_forward)
    AttentionMaskInterface.register(NAME, causal_mask)
    model.set_attn_implementation(NAME)


def causal_mask(
    *,
    q_length: int,
    kv_length: int,
    q_offset: Any = 0,
    kv_offset: int = 0,
    mask_function: Any,
    attention_mask: Tensor | None = None,
    allow_is_causal_skip: bool = True,
    **options: Any,
) -> Tensor | None:
    """transformers' mask interface, where None says: query i sees the first S − T + i + 1 keys, and no other.

    Its own None means something else for S > T, so that anything but plain causality without padding gets a mask.

    Returns:
        None, or [B, 1, T, S], true where a query sees a key.
    """
    from transformers.masking_utils import causal_mask_function, sdpa_mask

    plain = allow_is_causal_skip and mask_function is causal_mask_function
    aligned = isinstance(q_offset, int) and kv_offset == 0 and q_offset + q_length == kv_length
    unpadded = attention_mask is None or bool(attention_mask.all())
    if plain and aligned and unpadded:
        return None
    mask: Tensor | None = sdpa_mask(
        q_length=q_length,
        kv_length=kv_length,
        q_offset=q_offset,
        kv_offset=kv_offset,
        mask_function=mask_function,
        attention_mask=attention_mask,
        allow_is_causal_skip=False,
        **options,
    )
    return mask


def attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface.

    Args:
        module: the attention layer.
        query: [B, A, T, D].
        key: [B, K, S, D].
        value: [B, K, S, D].
        attention_mask: from `causal_mask`.
        dropout: of the probabilities.
        scaling: c; left out, 1/√D.
        is_causal: left out, as the layer says.

    Returns:
        [B, T, A, D], and None instead of probabilities.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    num_queries, num_keys = query.shape[2], key.shape[2]
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    causal = causal and attention_mask is None and num_queries > 1
    foreign = dropout > 0 or any(options.get(name) is not None for name in FOREIGN_OPTIONS)
    if causal and not foreign and query.device.type == "cpu" and query.dtype in FAST_TYPES:
        return causal_attention(query, key, value, scaling), None
    if causal and num_keys > num_queries:  # torch's would take the queries for the first positions
        attention_mask = query.new_ones(num_queries, num_keys, dtype=torch.bool).tril_(num_keys - num_queries)
    attended: tuple[Tensor, None] = sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout, scaling, is_causal, **options
    )
    return attended


def causal_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float | None = None) -> Tensor:
    """softmax(scaling · query keyᵀ + causal) value: [B, A, T, D], [B, K, S, D] and [B, K, S, D] → [B, T, A, D]."""
    apply: Any = _CausalAttention.apply  # torch leaves it untyped
    attended: Tensor = apply(query, key, value, query.shape[-1] ** -0.5 if scaling is None else scaling)
    return attended


class _CausalAttention(torch.autograd.Function):
    """Holds the scores of one block at a time, B·A·n·e numbers; keeps probabilities for up to `KEPT_KEYS` keys."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        batch, num_heads, num_queries, _ = query.shape
        keys, values = key.flatten(0, 1), value.flatten(0, 1)  # [B·K, S, D]
        num_keys = keys.shape[1]
        attended = query.new_empty(batch, num_queries, num_heads, value.shape[-1])
        kept: list[Tensor] = []
        for block, end in _blocks(num_queries, num_keys):
            rows = _rows(query[:, :, block], key)
            probs = _probabilities(rows, keys[:, :end], scaling, block)  # [B·K, G·n, e]
            attended[:, block] = _heads(torch.bmm(probs, values[:, :end]), query).transpose(1, 2)
            if num_keys <= KEPT_KEYS and any(ctx.needs_input_grad):
                kept.append(probs)
        ctx.save_for_backward(query, key, value, *kept)
        ctx.scaling = scaling
        return attended

    @staticmethod
    def backward(ctx: Any, grad_attended: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        keys, values = key.flatten(0, 1), value.flatten(0, 1)  # [B·K, S, D]
        grad_query = torch.empty_like(query)
        grad_keys, grad_values = (torch.zeros_like(x, dtype=_sum_type(x)) for x in (keys, values))
        for number, (block, end) in enumerate(_blocks(query.shape[2], keys.shape[1])):
            rows = _rows(query[:, :, block], key)  # [B·K, G·n, D]
            grad_rows = _rows(grad_attended[:, block].transpose(1, 2), key)
            probs = kept[number] if kept else _probabilities(rows, keys[:, :end], ctx.scaling, block)
            grad_values[:, :end] += torch.bmm(probs.mT, grad_rows)
            grad_scores = _grad_scores(probs, torch.bmm(grad_rows, values[:, :end].mT), ctx.scaling)
            grad_query[:, :, block] = _heads(torch.bmm(grad_scores, keys[:, :end]), query)
            grad_keys[:, :end] += torch.bmm(grad_scores.mT, rows)
        return grad_query, grad_keys.to(key.dtype).view_as(key), grad_values.to(value.dtype).view_as(value), None


def _blocks(num_queries: int, num_keys: int) -> Iterator[tuple[slice, int]]:
    """Each block of queries, and how many keys its last query sees."""
    for start in range(0, num_queries, BLOCK_QUERIES):
        stop = min(start + BLOCK_QUERIES, num_queries)
        yield slice(start, stop), num_keys - num_queries + stop


def _rows(heads: Tensor, key: Tensor) -> Tensor:
    """[B, A, n, D] → [B·K, G·n, D]: the query heads of each key head below each other."""
    batch, num_heads, count, size = heads.shape
    return heads.reshape(batch * key.shape[1], num_heads // key.shape[1] * count, size)


def _heads(rows: Tensor, query: Tensor) -> Tensor:
    """[B·K, G·n, D] → [B, A, n, D], the way back."""
    return rows.view(query.shape[0], query.shape[1], -1, rows.shape[-1])


def _sum_type(of: Tensor) -> torch.dtype:
    return torch.promote_types(of.dtype, torch.float32)


def _probabilities(rows: Tensor, keys: Tensor, scaling: float, block: slice) -> Tensor:
    """softmax(c·Q Kᵀ + M) of a block: [B·K, G·n, D], [B·K, e, D] → [B·K, G·n, e], in the type of the queries."""
    exact = _sum_type(rows)
    scores = torch.bmm(rows.to(exact) * scaling, keys.to(exact).mT)
    count = block.stop - block.start
    unseen = scores.new_full((count, count), -torch.inf).triu_(1)  # [n, n], of the block's own keys
    scores.view(scores.shape[0], -1, count, keys.shape[1])[..., -count:] += unseen
    return scores.softmax(-1).to(rows.dtype)


def _grad_scores(probs: Tensor, grad_probs: Tensor, scaling: float) -> Tensor:
    """dS = c·P ∘ (dP − rowsum(P ∘ dP)): [B·K, G·n, e], in the type of the probabilities."""
    exact = _sum_type(probs)
    weights = probs.to(exact)
    pull = grad_probs.to(exact).mul(weights)
    return pull.sub_(weights * pull.sum(-1, keepdim=True)).mul_(scaling).to(probs.dtype)
