"""Which weights are trained: all, all but the embeddings, or low-rank adapters (LoRA, through peft)."""

from __future__ import annotations

import dataclasses

import torch

from selftaught.config import LearnConfig
from selftaught.errors import ConfigError
from selftaught.models.load import LanguageModel


def trainable(student: LanguageModel, config: LearnConfig) -> LanguageModel:
    """The model with the weights that are to be trained: its own, or LoRA adapters, still in its own type.

    Raises:
        ConfigError: a target is not a layer that can have an adapter.
    """
    if config.weights.kind == "full":
        if not config.weights.embeddings:
            for layer in (student.plain_model.get_input_embeddings(), student.plain_model.get_output_embeddings()):
                layer.requires_grad_(False)
        return student
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(config.seed)  # the adapters' start
    targets = config.weights.targets
    lora = LoraConfig(
        r=config.weights.rank,
        lora_alpha=config.weights.scale * config.weights.rank,
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
    model.peft_config["default"].base_model_name_or_path = str(student.path)  # which may be an adapter itself
    return dataclasses.replace(student, model=model.eval())
