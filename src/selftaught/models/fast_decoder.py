"""The decoder of the Llama family (Llama, Mistral, Qwen2, Qwen3, SmolLM): its layers, run by hand.

Rows are packed, so nothing is padded; query, key and value are one product, and so are gate and up;
the weights are the live ones, or laid out anew for products with few rows.

Legend: R rows, N = Σ new tokens of all rows (packed), T new tokens of the longest row, S slots that are
seen, H hidden size, D head size, G query heads a key-value head, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from selftaught.losses.distillation import Head
from selftaught.models.decoder import Decoder, KeysValues, NewTokens, PlainDecoder, added_mask, rounded_up
from selftaught.models.load import LanguageModel

MAX_SCORES = 1 << 21  # attention scores held at a time


@dataclass(frozen=True)
class _Linear:
    """y = x Wᵀ + b; packed once for matrix products of few rows where that pays."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        if self.weight.is_mkldnn:
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")  # type: ignore[no-any-return]
        return torch.nn.functional.linear(x, self.weight, self.bias)

    def prepacked(self) -> _Linear:
        return _Linear(torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), PACKED_ROWS), self.bias)


PACKED_ROWS = 16  # number of rows that the packed layout is made for
PREPACK_STEPS = 20  # packing costs about what so many steps save by it


@dataclass(frozen=True)
class _Layer:
    """The weights of one decoder layer; query, key and value are one matrix, and so are gate and up."""

    input_norm: Tensor
    qkv: _Linear
    query_norm: Tensor | None
    key_norm: Tensor | None
    out: _Linear
    mlp_norm: Tensor
    gate_up: _Linear
    down: _Linear


class FastDecoder:
    """The Llama family, run by hand: the linear layers see packed rows, and large products instead of small ones.

    It reads the weights as they are when it is made; make another after they have changed.

    Args:
        model: one that `supported` accepts.
        prepack: lay the weights out for products with few rows: see `PREPACK_STEPS`.
    """

    def __init__(self, model: LanguageModel, prepack: bool = False) -> None:
        self.model = model
        base = model.plain_model
        config = base.config.get_text_config(decoder=True)
        self._eps = config.rms_norm_eps
        self._heads = config.num_attention_heads
        self._kv_heads = config.num_key_value_heads
        self._head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self._embedding = base.get_input_embeddings().weight.detach()
        self._norm = base.model.norm.weight.detach()
        self._rotary = base.model.rotary_emb
        head = model.head.detached()
        prepack = prepack and head.weight.device.type == "cpu" and head.weight.dtype == torch.bfloat16
        prepack = prepack and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        self._layers = [_read_layer(layer, prepack) for layer in base.model.layers]
        self._head: Head | _Linear = _Linear(head.weight, head.bias).prepacked() if prepack else head
        self._angles: tuple[Tensor, Tensor] | None = None

    def new_cache(self, rows: int, slots: int) -> KeysValues:
        """See `Decoder`."""
        shape = (rows, self._kv_heads, rounded_up(slots), self._head_dim)
        like = self._norm
        layers = range(len(self._layers))
        return KeysValues([like.new_zeros(shape) for _ in layers], [like.new_zeros(shape) for _ in layers])

    @torch.no_grad()
    def extend(self, cache: KeysValues, new: NewTokens, first_row: int = 0) -> Tensor:
        """See `Decoder`."""
        cache.make_room(new.span)
        cos, sin = self._rotation(new, cache.num_slots)
        mask = added_mask(new.visible(), self._norm.dtype)[:, None, None]  # [R, 1, 1, T, S]
        cache_row = first_row + new.row
        rows = slice(first_row, first_row + new.num_rows)
        split = [self._heads + self._kv_heads, self._kv_heads]
        x = torch.nn.functional.embedding(new.ids, self._embedding)  # [N, H]
        for layer, keys, values in zip(self._layers, cache.keys, cache.values, strict=True):
            qkv = layer.qkv(self._rms_norm(x, layer.input_norm)).unflatten(-1, (-1, self._head_dim))  # [N, heads, D]
            qk, v = qkv.split(split, 1)
            if layer.query_norm is not None and layer.key_norm is not None:
                q, k = qk[:, : self._heads], qk[:, self._heads :]
                qk = torch.cat([self._rms_norm(q, layer.query_norm), self._rms_norm(k, layer.key_norm)], 1)
            qk = _rotate(qk, cos, sin)
            keys[cache_row, :, new.position] = qk[:, self._heads :]
            values[cache_row, :, new.position] = v
            mixed = self._attend(
                qk[:, : self._heads], keys[rows, :, : new.span], values[rows, :, : new.span], mask, new
            )
            x = x + layer.out(mixed.flatten(1))
            gate, up = layer.gate_up(self._rms_norm(x, layer.mlp_norm)).chunk(2, -1)
            x = x + layer.down(torch.nn.functional.silu(gate) * up)
        return self._rms_norm(x, self._norm)

    def logits(self, hidden: Tensor) -> Tensor:
        """See `Decoder`."""
        return self._head(hidden).float()

    def _rms_norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return torch.nn.functional.rms_norm(x, weight.shape, weight, self._eps)

    def _rotation(self, new: NewTokens, num_slots: int) -> tuple[Tensor, Tensor]:
        """Cosine and sine of each new token's position, [N, 1, D]."""
        if self._angles is None or len(self._angles[0]) < num_slots:
            positions = torch.arange(num_slots, device=self._norm.device)[None]
            cos, sin = self._rotary(self._norm, position_ids=positions)
            self._angles = cos[0], sin[0]
        cos, sin = self._angles
        return cos[new.position, None], sin[new.position, None]

    def _attend(self, q: Tensor, keys: Tensor, values: Tensor, mask: Tensor, new: NewTokens) -> Tensor:
        """[N, heads, D] → [N, heads, D]; the G query heads of a key-value head are rows of one product."""
        grouped = new.padded(q * self._head_dim**-0.5).unflatten(2, (self._kv_heads, -1)).permute(0, 2, 3, 1, 4)
        shape = grouped.shape  # [R, kv heads, G, T, D]
        grouped = grouped.flatten(2, 3)  # [R, kv heads, G·T, D]
        if new.width == 1 and keys.device.type == "cpu":  # a copy streams; a product of few rows waits for memory
            keys, values = keys.clone(), values.clone()
        at_once = max(1, MAX_SCORES // (self._heads * new.width * keys.shape[2]))  # rows
        mixed = []
        for rows in (slice(start, start + at_once) for start in range(0, new.num_rows, at_once)):
            scores = (grouped[rows] @ keys[rows].transpose(-1, -2)).unflatten(2, shape[2:4])  # [., kv heads, G, T, S]
            weights = scores.add_(mask[rows]).softmax(-1, dtype=torch.float32).to(values.dtype)
            mixed.append(weights.flatten(2, 3) @ values[rows])
        return new.packed(torch.cat(mixed).view(shape).permute(0, 3, 1, 2, 4).flatten(2, 3))


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding on [N, heads, D]: the two halves of D are the two coordinates."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def _read_layer(layer: Any, prepack: bool) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp

    def linear(*modules: Any) -> _Linear:
        weights = [effective_weight(module) for module in modules]
        biases = [module.bias for module in modules]
        weight = joined(weights)
        bias = None if biases[0] is None else torch.cat([bias.detach() for bias in biases])
        return _Linear(weight, bias).prepacked() if prepack else _Linear(weight, bias)

    def norm(module: Any) -> Tensor | None:
        return None if module is None else module.weight.detach()

    return _Layer(
        input_norm=layer.input_layernorm.weight.detach(),
        qkv=linear(attention.q_proj, attention.k_proj, attention.v_proj),
        query_norm=norm(getattr(attention, "q_norm", None)),
        key_norm=norm(getattr(attention, "k_norm", None)),
        out=linear(attention.o_proj),
        mlp_norm=layer.post_attention_layernorm.weight.detach(),
        gate_up=linear(mlp.gate_proj, mlp.up_proj),
        down=linear(mlp.down_proj),
    )


def joined(weights: Sequence[Tensor]) -> Tensor:
    """[n_1, H], [n_2, H], … as one [Σ n, H]: a view where they already lie one behind the other."""
    first, end = weights[0], weights[0].data_ptr()
    memory = first.untyped_storage().data_ptr()
    for weight in weights:
        inside = weight.untyped_storage().data_ptr() == memory
        if not inside or not weight.is_contiguous() or weight.data_ptr() != end:
            return torch.cat(list(weights))
        end += weight.nbytes
    return first.as_strided((sum(map(len, weights)), first.shape[1]), (first.shape[1], 1), first.storage_offset())


def effective_weight(module: Any) -> Tensor:
    """A linear layer's weight, its adapter's present effect added: W + scaling · B A."""
    if not hasattr(module, "get_base_layer"):
        return module.weight.detach()  # type: ignore[no-any-return]
    weight: Tensor = module.get_base_layer().weight.detach()
    if module.disable_adapters or module.merged:
        return weight
    for name in module.active_adapters:
        weight = (weight.float() + module.get_delta_weight(name).float()).to(weight.dtype)
    return weight


SUPPORTED = ("llama", "mistral", "qwen2", "qwen3")
"""Model types whose layers are what `FastDecoder` computes; tests hold each to `PlainDecoder`."""


def supported(model: LanguageModel) -> bool:
    """Whether `FastDecoder` computes what this model does."""
    base = model.plain_model
    config = base.config.get_text_config(decoder=True)
    rope = getattr(config, "rope_parameters", None) or {}
    full = set(getattr(config, "layer_types", None) or {"full_attention"}) == {"full_attention"}
    window = None if getattr(config, "layer_types", None) else getattr(config, "sliding_window", None)
    return (
        base.config.model_type in SUPPORTED
        and full
        and window is None
        and getattr(config, "hidden_act", None) == "silu"
        and rope.get("rope_type", "default") in ("default", "linear", "llama3", "yarn")
        and not getattr(config, "attention_bias", False)
        and not getattr(config, "mlp_bias", False)
    )


def make_decoder(model: LanguageModel, num_steps: int = 0) -> Decoder:
    """The fastest decoder that computes what this model does, with its weights as they are now.

    Args:
        model: who answers.
        num_steps: about how many tokens will be decoded one after another; where they are many, the
            weights are laid out for that first.
    """
    return FastDecoder(model, prepack=num_steps >= PREPACK_STEPS) if supported(model) else PlainDecoder(model)
