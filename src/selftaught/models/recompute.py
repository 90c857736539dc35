"""Activation checkpointing: of each layer only the input is kept; the backward pass computes the rest again."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from selftaught.models.load import LanguageModel
from selftaught.models.sharded import layers_of


class _Recomputed(nn.Module):
    """What a layer becomes: where no gradient is wanted, it runs as ever."""

    def forward(self, *args: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return super().forward(*args, **options)
        return checkpoint(super().forward, *args, use_reentrant=False, preserve_rng_state=False, **options)


def recomputing(model: LanguageModel) -> LanguageModel:
    """The same model, whose layers are computed again in the backward pass."""
    for layer in layers_of(model.plain_model.get_decoder()):
        layer.__class__ = type(type(layer).__name__, (_Recomputed, type(layer)), {})
    return dataclasses.replace(model, recomputes=True)
