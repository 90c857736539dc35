"""AdamW on float32 masters, for a model that computes in a smaller type, shared by all processes.

Masters, moments and the model's weights are one long row of numbers each, in memory that every process
sees. A process adds up the gradient of its own rows; then each updates its own part of the numbers, from
everyone's gradient there. So the state exists once, and nothing is sent.

Legend: n trained numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from selftaught.config import LearnConfig
from selftaught.errors import TrainingError
from selftaught.models.load import LanguageModel, flat_views, share_weights
from selftaught.processes import ALONE, ProcessGroup


def learning_rate(config: LearnConfig, step: int) -> float:
    """The learning rate of a step (0-based): a linear warm-up, then cosine down to 0 or constant."""
    if step < config.warmup_steps:
        return config.peak_learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.peak_learning_rate
    done = (step - config.warmup_steps) / max(1, config.total_steps - config.warmup_steps)
    return config.peak_learning_rate * 0.5 * (1 + math.cos(math.pi * done))


class AnyOptimizer(Protocol):
    """What holds the student's masters and moves them: see `Optimizer`, and `distributed_optim`."""

    config: LearnConfig
    masters: dict[str, Tensor]

    def step(self, step: int) -> float:
        """Adds everyone's gradient and updates; the gradient's norm before clipping."""
        ...

    def state(self) -> dict[str, Tensor]:
        """All that a later `load_state` needs, by name: the tensors themselves, not copies."""
        ...

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Goes back to a state, weights of the model included."""
        ...

    def close(self) -> None:
        """Lets go of what only training needs."""
        ...


PIECE = 1 << 20  # numbers handled at a time where a copy of them is made


class Optimizer:
    """AdamW whose weights, moments and gradients are float32 whatever the model computes in.

    Each micro-batch's gradients are added to float32 sums as backward produces them, and dropped: an
    update of 1e-6 on a weight of 1, or a small gradient beside a large one, would vanish in bfloat16.

    Args:
        student: a model loaded with float32 weights; those that require gradients become the masters,
            and the model is turned to its compute type.
        config: decay and gradient clipping.
        processes: who adds gradients.
    """

    def __init__(self, student: LanguageModel, config: LearnConfig, processes: ProcessGroup = ALONE) -> None:
        self.config, self.processes = config, processes
        named = dict(student.model.named_parameters())
        self._trained = trained = {name: weight for name, weight in named.items() if weight.requires_grad}
        size, device = sum(weight.numel() for weight in trained.values()), student.device
        self._master = share_weights(trained, torch.float32, processes)  # [n]
        self.masters: dict[str, Tensor] = flat_views(trained, self._master)
        separate = student.dtype != torch.float32
        self._weights = share_weights(trained, student.dtype, processes) if separate else self._master  # [n]
        share_weights({name: w for name, w in named.items() if name not in trained}, student.dtype, processes)
        self._moments = [processes.shared_memory(size, torch.float32, device) for _ in range(2)]  # [n] each
        self._gradients = processes.shared_memory(size * processes.size, torch.float32, device).view(processes.size, -1)
        self._hooks = [
            trained[name].register_post_accumulate_grad_hook(_adder(own))
            for name, own in flat_views(trained, self._gradients[processes.rank]).items()
        ]

        cuts = [size * rank // processes.size for rank in range(processes.size + 1)]
        self._mine = slice(cuts[processes.rank], cuts[processes.rank + 1])  # the part that this process updates
        self._part = torch.nn.Parameter(self._master[self._mine])
        self._part.grad = self._gradients[0, self._mine]
        self._adamw = torch.optim.AdamW(
            [self._part], lr=0.0, betas=(0.9, 0.999), weight_decay=config.weight_decay, fused=True
        )
        self._adamw.state[self._part] = {
            "step": torch.zeros((), dtype=torch.float32, device=device),
            "exp_avg": self._moments[0][self._mine],
            "exp_avg_sq": self._moments[1][self._mine],
        }

    @torch.no_grad()
    def step(self, step: int) -> float:
        """Adds everyone's gradient, clips it, updates the masters and the model's weights, and clears the gradient.

        Returns:
            The gradient's norm before clipping.

        Raises:
            TrainingError: the gradient is not finite; no weight has been changed.
        """
        assert self._part.grad is not None
        self.processes.wait()  # until every gradient is complete
        for other in self._gradients[1:, self._mine]:
            self._part.grad += other
        norms = torch.stack(torch._foreach_norm(self._part.grad.split(PIECE)))  # in pieces, for float32 sums' sake
        norm = math.sqrt(self.processes.sum(float(norms.cpu().double().square().sum())))
        self._part.grad *= clipping(norm, self.config, step)
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate(self.config, step)
        self._adamw.step()
        if self._weights is not self._master:
            self._weights[self._mine] = self._master[self._mine]
        self._gradients[:, self._mine] = 0
        self.processes.wait()  # until every weight is new
        return norm

    def close(self) -> None:
        """Lets the gradients' memory go, although the model lives on."""
        for hook in self._hooks:
            hook.remove()

    def state(self) -> dict[str, Tensor]:
        """All that a later `load_state` needs, by name; the same in every process."""
        tensors = {"adamw.step": self._adamw.state[self._part]["step"]}
        for key, flat in (("master", self._master), ("exp_avg", self._moments[0]), ("exp_avg_sq", self._moments[1])):
            tensors |= {f"{key}.{name}": view for name, view in flat_views(self._trained, flat).items()}
        return tensors

    @torch.no_grad()
    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Goes back to a state, weights of the model included."""
        state = self.state()
        for name, value in state.items():
            if name == "adamw.step" or self.processes.first:
                value.copy_(tensors[name])
        if self.processes.first and self._weights is not self._master:
            self._weights.copy_(self._master)
        self.processes.wait()


def clipping(norm: float, config: LearnConfig, step: int) -> float:
    """What a gradient of that norm is multiplied by.

    Raises:
        TrainingError: it is not finite.
    """
    if not math.isfinite(norm):
        raise TrainingError(
            f"step {step + 1}: the gradient is not finite; lower learning_rate, or set dtype=float32 "
            "(the last checkpoint is kept)"
        )
    return min(1.0, config.max_grad_norm / (norm + 1e-6))


def _adder(total: Tensor):  # type: ignore[no-untyped-def]
    def add(weight: Tensor) -> None:
        assert weight.grad is not None
        for part, new in zip(total.flatten().split(PIECE), weight.grad.flatten().split(PIECE), strict=True):
            part.add_(new.float())  # adding bfloat16 to float32 without this is eight times slower
        weight.grad = None

    return add
