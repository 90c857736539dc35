"""The configuration of a run: frozen, complete, stored with every result.

Class defaults are the vetted setting. A recipe is a TOML file with any of these fields; dotted
overrides ("teacher.kind=ema") change single ones. The sentence at each field feeds docs/configuration.md.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from selftaught.config_parts import (
    AnchorConfig,
    Config,
    EmaTeacher,
    FrozenTeacher,
    FullSupport,
    FullWeights,
    GuardConfig,
    LiveTeacher,
    LoraWeights,
    LossConfig,
    PromptConfig,
    QuestionConfig,
    QuestionKind,
    RolloutConfig,
    Support,
    Teacher,
    TeacherTopK,
    Weights,
)
from selftaught.errors import ConfigError

__all__ = [
    "DISTILLING",
    "DISTIL_RATE",
    "EPOCHS",
    "FEW_ROWS",
    "METHOD_LABELS",
    "MIN_EPOCHS",
    "MIN_STEPS",
    "SFT_RATE",
    "AnchorConfig",
    "Config",
    "EmaTeacher",
    "FrozenTeacher",
    "FullSupport",
    "FullWeights",
    "GuardConfig",
    "LearnConfig",
    "LiveTeacher",
    "LoraWeights",
    "LossConfig",
    "Method",
    "PromptConfig",
    "QuestionConfig",
    "QuestionKind",
    "RolloutConfig",
    "Support",
    "Teacher",
    "TeacherTopK",
    "Weights",
]

EPOCHS, FEW_ROWS = 12, 40  # what the quickstart's corpus needs (docs/log.md)
MIN_EPOCHS = 4  # of many rows; a lesson of hundreds in 12 passes would take hours on a processor
MIN_STEPS = 30  # few rows teach little in fewer
DISTILLING = ("sdft", "off_policy")  # they move the student towards the teacher's distribution
DISTIL_RATE = {"lora": 2.5e-3, "full": 1.2e-4}  # each tuned on its own (docs/log.md)
SFT_RATE = {"lora": 4e-4, "full": 5e-5}  # the latter tuned as well; at 1e-3 adapters drift more than twice as far

Method = Literal["sdft", "off_policy", "sft", "dft", "cpt", "teacher_samples", "replay", "reinvoke", "oracle"]
METHOD_LABELS: dict[str, str] = {
    "sdft": "SDFT",
    "off_policy": "off-policy distillation",
    "sft": "SFT",
    "dft": "DFT",
    "cpt": "continued pre-training",
    "teacher_samples": "SFT on teacher samples",
    "replay": "SFT + replay",
    "reinvoke": "SFT + re-invoke",
    "oracle": "oracle retrieval",
}


class LearnConfig(Config):
    """One training run."""

    method: Method = Field(
        "sdft",
        description="How it is taught: self-distillation, or a baseline: docs/methods.md.",
    )
    epochs: float | None = Field(
        None,
        gt=0,
        description="Passes over the rows; left out, 12 where rows have documents or are 40 or fewer, of more rows "
        "fewer (480 / rows), but 4, and as many more as 30 steps need.",
    )
    steps: int | None = Field(None, ge=1, description="Number of optimiser steps; given, it replaces epochs.")
    batch_size: int = Field(16, ge=1, description="Completions an optimiser step; of fewer rows, one of each.")
    learning_rate: float | None = Field(
        None,
        gt=0,
        description="Peak learning rate of AdamW; left out, 2.5e-3 for sdft and off_policy (1.2e-4 where all weights "
        "are trained) and 4e-4 (5e-5) for the others.",
    )
    schedule: Literal["cosine", "constant"] = Field("cosine", description="Learning rate after the warm-up.")
    warmup_steps: int = Field(5, ge=0, description="Steps over which the learning rate rises from 0 to its peak.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay of AdamW.")
    max_grad_norm: float = Field(1.0, gt=0, description="The gradient's norm is clipped to this.")
    weights: Weights = Field(LoraWeights(), description="Which weights are trained.")
    teacher: Teacher = Field(FrozenTeacher(), description="Which weights the teacher has.")
    loss: LossConfig = Field(LossConfig(), description="What is minimised.")
    rollout: RolloutConfig = Field(RolloutConfig(), description="How completions are drawn.")
    anchor: AnchorConfig = Field(AnchorConfig(), description="What keeps the student near the base (SDFT).")
    guard: GuardConfig = Field(GuardConfig(), description="When a run ends itself.")
    prompts: PromptConfig = Field(PromptConfig(), description="What the teacher is shown.")
    questions: QuestionConfig = Field(QuestionConfig(), description="How questions are made of documents.")
    sft_documents: bool = Field(False, description="SFT also trains on each distinct document, as plain text.")
    reinvoke_share: float = Field(
        0.5, gt=0, lt=1, description="Part of a reinvoke run, at its end, in which the base is distilled back."
    )
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto", description="Compute type; auto takes bfloat16 where the processor really has it."
    )
    parallel: Literal["auto", "ddp", "fsdp2"] = Field(
        "auto",
        description="How processes of torchrun train together: ddp = each holds the whole state; fsdp2 = each holds "
        "its part of the weights, gradients and optimiser's state; auto = ddp there, and shared memory elsewhere "
        "(docs/cluster.md).",
    )
    activation_checkpointing: bool = Field(
        False,
        description="Keep only each layer's input for the backward pass, and compute the rest again: less memory, a "
        "third more time in training.",
    )
    microbatch_tokens: int = Field(
        512, ge=1, description="Padded tokens in one forward and backward pass; bounds memory, not the result."
    )
    prefix_cache_mib: int = Field(
        1024,
        ge=0,
        description="Memory, of all processes, for the teacher's kept prompts, and as much for its kept draws; beyond "
        "it they are computed again.",
    )
    checkpoint_every: int = Field(30, ge=1, description="Steps between checkpoints.")
    keep_checkpoints: int = Field(1, ge=1, description="Number of checkpoints kept.")
    evaluate_every: int = Field(0, ge=0, description="Steps between evaluations along the run; 0 is never.")
    probes: bool = Field(True, description="Measure the retention probes and drift before and after.")
    seed: int = Field(0, ge=0, description="One seed, one result; another number of processes rounds otherwise.")

    @property
    def total_steps(self) -> int:
        """Number of optimiser steps, once resolved."""
        assert self.steps is not None, "resolve() the configuration first"
        return self.steps

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate after the warm-up, once resolved."""
        return self.learning_rate or (DISTIL_RATE if self.distils else SFT_RATE)[self.weights.kind]

    @property
    def distils(self) -> bool:
        """Whether the student is moved towards the teacher's distribution over completions."""
        return self.method in DISTILLING

    @property
    def teaches(self) -> bool:
        """Whether any weight changes; oracle retrieval only shows the documents when it asks."""
        return self.method != "oracle"

    @property
    def shows_teacher(self) -> bool:
        """Whether the teacher is shown the demonstrations at all."""
        return self.distils or self.method == "teacher_samples"

    @property
    def completion_limit(self) -> int:
        """Longest completion in tokens, once resolved."""
        assert self.rollout.max_new_tokens is not None, "resolve() the configuration first"
        return self.rollout.max_new_tokens

    @property
    def rows_a_step(self) -> int:
        """Rows in a step: fewer than completions where several are drawn of each."""
        return self.batch_size // (self.rollout.per_prompt if self.distils else 1)

    @property
    def rollout_limit(self) -> int:
        """Longest rollout in tokens, once resolved."""
        return min(self.completion_limit, self.rollout.prefix_tokens or self.completion_limit)

    def resolve(self, num_rows: int, longest_demonstration: int, knowledge: bool = False) -> LearnConfig:
        """The same with everything filled in that depends on the data.

        Args:
            num_rows: rows that are taught.
            longest_demonstration: in tokens.
            knowledge: whether they are about documents: each fact is to be learned by heart, however many there are.

        Raises:
            ConfigError: the batch cannot be made of whole prompts.
        """
        per_prompt = self.rollout.per_prompt if self.distils else 1
        if self.batch_size % per_prompt:
            raise ConfigError(
                f"batch_size: {self.batch_size} completions cannot be {per_prompt} of each prompt; "
                "make it a multiple of rollout.per_prompt"
            )
        if self.method in ("replay", "reinvoke") and not self.anchor.rows:
            raise ConfigError(f"anchor.rows: {self.method} needs general prompts; set it above 0")
        batch_size = min(self.batch_size, num_rows * per_prompt)
        least = EPOCHS if knowledge else MIN_EPOCHS
        epochs = self.epochs or max(least, min(EPOCHS, EPOCHS * FEW_ROWS / num_rows))
        steps = self.steps or math.ceil(round(epochs * num_rows * per_prompt / batch_size, 6))
        if self.steps is None and self.epochs is None:
            steps = max(steps, MIN_STEPS)
        length = self.rollout.max_new_tokens or math.ceil(1.5 * longest_demonstration)
        rollout = self.rollout.model_copy(update={"max_new_tokens": length})
        changed = {
            "steps": steps,
            "batch_size": batch_size,
            "learning_rate": self.peak_learning_rate,
            "rollout": rollout,
        }
        return self.model_copy(update=changed)
