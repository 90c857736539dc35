"""Tiny random models of many architectures, for tests that hold our decoders to transformers' own forward pass."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from selftaught.models.load import LanguageModel, share_weights

VOCAB = 97
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": True,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 100.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 64}
LINEAR = {"rope_type": "linear", "rope_theta": 100.0, "factor": 4.0}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 4.0}
WINDOW = 5
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]

FAST: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama, untied head": ("Llama", {"tie_word_embeddings": False}),
    "llama, as many key heads": ("Llama", {"num_key_value_heads": 4}),
    "llama, one key head": ("Llama", {"num_key_value_heads": 1}),
    "llama, wide heads": ("Llama", {"head_dim": 12}),
    "llama, llama3 rope": ("Llama", {"rope_parameters": LLAMA3}),
    "llama, yarn rope": ("Llama", {"rope_parameters": YARN}),
    "llama, linear rope": ("Llama", {"rope_parameters": LINEAR}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {}),
    "qwen2, untied head": ("Qwen2", {"tie_word_embeddings": False}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
}
"""What `FastDecoder` takes: transformers' class and what differs from `SIZES`."""

PLAIN: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256}),
    "gemma": ("Gemma", {"head_dim": 8}),
    "gemma2": ("Gemma2", {"head_dim": 8, "sliding_window": WINDOW, "layer_types": MIXED}),
    "gemma3": ("Gemma3", {"head_dim": 8, "sliding_window": WINDOW, "layer_types": MIXED}),
    "mistral, sliding": ("Mistral", {"sliding_window": WINDOW}),
    "qwen2, sliding": ("Qwen2", {"sliding_window": WINDOW, "use_sliding_window": True, "max_window_layers": 0}),
    "qwen3, mixed": ("Qwen3", {"sliding_window": WINDOW, "use_sliding_window": True, "layer_types": MIXED}),
    "llama, biases": ("Llama", {"attention_bias": True}),
    "llama, mlp biases": ("Llama", {"mlp_bias": True}),
    "llama, gelu": ("Llama", {"hidden_act": "gelu"}),
    "qwen3, biases": ("Qwen3", {"attention_bias": True}),
    "olmo2": ("Olmo2", {}),
    "phi3": ("Phi3", {"sliding_window": None}),
}
"""What only `PlainDecoder` computes."""

REFUSED = {"llama, dynamic rope": ("Llama", {"rope_parameters": DYNAMIC})}


@functools.cache
def build(name: str) -> LanguageModel:
    """A random model in float32 that has opinions; do not change it."""
    return make(*{**FAST, **PLAIN, **REFUSED}[name])


def make(family: str, values: dict[str, Any], seed: int = 0) -> LanguageModel:
    """A new random model: every bias and every norm is random too, and weights are large enough to matter."""
    text = "Text" if family == "Gemma3" else ""
    config_class = getattr(transformers, f"{family}{text}Config")
    model_class = getattr(transformers, f"{family}LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM")
    torch.manual_seed(seed)
    model = model_class(config_class(**{**SIZES, **values})).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.25)
            else:
                weight.add_(0.3 * torch.randn(weight.shape))
    return LanguageModel(model, None, Path(), torch.float32, frozenset({2}), 256)


def laid_out(model: LanguageModel, dtype: torch.dtype = torch.float32) -> LanguageModel:
    """The same model with its weights in one piece of memory, as `load_model` and the optimiser leave them."""
    share_weights(dict(model.model.named_parameters()), dtype)
    return LanguageModel(model.model, None, Path(), dtype, model.stop_ids, model.max_tokens)


def tokens(length: int, seed: int = 0) -> list[int]:
    """A random sequence."""
    found: list[int] = torch.randint(3, VOCAB, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
    return found


@torch.no_grad()
def full_pass(model: LanguageModel, ids: list[int]) -> Tensor:
    """Every token's state, from transformers' own forward pass, without a cache or a mask of ours: [T, H]."""
    states: Tensor = model.plain_model.get_decoder()(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state
    return states[0]
