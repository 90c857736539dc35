"""AdamW on float32 masters, for a model that computes in a smaller type."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from selftaught.config import LearnConfig
from selftaught.errors import TrainingError
from selftaught.models.load import LanguageModel, cast_weights


def learning_rate(config: LearnConfig, step: int) -> float:
    """The learning rate of a step (0-based): a linear warm-up, then cosine down to 0 or constant."""
    if step < config.warmup_steps:
        return config.peak_learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.peak_learning_rate
    done = (step - config.warmup_steps) / max(1, config.total_steps - config.warmup_steps)
    return config.peak_learning_rate * 0.5 * (1 + math.cos(math.pi * done))


class Optimizer:
    """AdamW whose weights, moments and gradients are float32 whatever the model computes in.

    Each micro-batch's gradients are added to float32 sums as backward produces them, and dropped: an
    update of 1e-6 on a weight of 1, or a small gradient beside a large one, would vanish in bfloat16.

    Args:
        student: a model loaded with float32 weights; those that require gradients become the masters,
            and the model is turned to its compute type.
        config: decay and gradient clipping.
    """

    def __init__(self, student: LanguageModel, config: LearnConfig) -> None:
        self.config = config
        trained = {name: p for name, p in student.model.named_parameters() if p.requires_grad}
        separate = student.dtype != torch.float32
        self.masters: dict[str, Tensor] = {
            name: p.detach().float().clone() if separate else p for name, p in trained.items()
        }
        cast_weights(student.model, student.dtype)
        self._copies = [(trained[name], master) for name, master in self.masters.items()] if separate else []
        for weight, master in self._copies:
            weight.register_post_accumulate_grad_hook(_adder(master))
        self._adamw = torch.optim.AdamW(
            list(self.masters.values()), lr=0.0, betas=(0.9, 0.999), weight_decay=config.weight_decay, fused=True
        )

    def step(self, step: int) -> float:
        """Clips the gradient, updates the masters and the model's weights, and clears the gradient.

        Returns:
            The gradient's norm before clipping.

        Raises:
            TrainingError: the gradient is not finite.
        """
        masters = list(self.masters.values())
        norm = float(torch.nn.utils.clip_grad_norm_(masters, self.config.max_grad_norm))
        if not math.isfinite(norm):
            raise TrainingError(
                f"step {step + 1}: the gradient is not finite; lower learning_rate, or set dtype=float32 "
                "(the last checkpoint is kept)"
            )
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate(self.config, step)
        self._adamw.step()
        torch._foreach_zero_(
            [master.grad for master in masters if master.grad is not None]
        )  # kept: fresh pages are slow
        self._refresh()
        return norm

    def state(self) -> dict[str, Tensor]:
        """All that a later `load_state` needs, by name."""
        tensors = {f"master.{name}": master.detach() for name, master in self.masters.items()}
        for name, master in self.masters.items():
            for key, value in self._adamw.state.get(master, {}).items():
                tensors[f"{key}.{name}"] = value
        return tensors

    @torch.no_grad()
    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Goes back to a state, weights of the model included."""
        for name, master in self.masters.items():
            master.copy_(tensors[f"master.{name}"])
            self._adamw.state[master] = {
                key: tensors[f"{key}.{name}"].to(master.device).clone()
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"{key}.{name}" in tensors
            }
        self._refresh()

    @torch.no_grad()
    def _refresh(self) -> None:
        if self._copies:
            torch._foreach_copy_([weight.data for weight, _ in self._copies], [master for _, master in self._copies])


def _adder(master: Tensor):  # type: ignore[no-untyped-def]
    def add(weight: Tensor) -> None:
        assert weight.grad is not None
        if master.grad is None:
            master.grad = weight.grad.float()
        else:
            master.grad += weight.grad
        weight.grad = None

    return add
