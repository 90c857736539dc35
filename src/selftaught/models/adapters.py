"""Low-rank adapters (LoRA), through peft."""

from __future__ import annotations

import dataclasses

import torch

from selftaught.config import LearnConfig
from selftaught.errors import ConfigError
from selftaught.models.load import LanguageModel


def with_adapters(student: LanguageModel, config: LearnConfig) -> LanguageModel:
    """The model with LoRA adapters where the configuration asks for them, in its own type until trained.

    Raises:
        ConfigError: a target is not a layer that can have an adapter.
    """
    if config.weights.kind == "full":
        return student
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(config.seed)  # the adapters' start
    targets = config.weights.targets
    lora = LoraConfig(
        r=config.weights.rank,
        lora_alpha=config.weights.alpha,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )
    embeddings = {"embed_tokens", "wte", "lm_head"} & set(() if isinstance(targets, str) else targets)
    if embeddings:
        raise ConfigError(f"weights.targets: {embeddings.pop()} cannot have an adapter; name layers between them")
    try:
        model = get_peft_model(student.model, lora, autocast_adapter_dtype=False)
    except ValueError as error:
        raise ConfigError(f"weights.targets: {error}") from error
    return dataclasses.replace(student, model=model.eval())
