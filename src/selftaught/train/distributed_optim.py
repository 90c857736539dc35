"""AdamW for processes that share no memory: each with the whole state (DDP), or each with its part (FSDP2).

What a step does is what `optim.Optimizer` does: the processes' gradients are added up in float32 (the losses are means
over the whole batch already), clipped by the norm of all, and the float32 masters move.

Legend: n trained numbers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selftaught.config import EmaTeacher, LearnConfig
from selftaught.distributed import DistributedGroup, check_parallel
from selftaught.errors import ConfigError
from selftaught.models.adapters import trainable
from selftaught.models.load import LanguageModel, default_device, load_model
from selftaught.models.recompute import recomputing
from selftaught.models.sharded import Shards, shard
from selftaught.processes import ALONE, ProcessGroup
from selftaught.train.optim import AnyOptimizer, Optimizer, clipping, learning_rate


class ReplicatedOptimizer(Optimizer):
    """Every process holds all masters and moments and makes the same step, from the sum of all gradients.

    Args:
        student: as `Optimizer` takes it.
        config: decay and gradient clipping.
    """

    def __init__(self, student: LanguageModel, config: LearnConfig) -> None:
        import torch.distributed as dist

        super().__init__(student, config, ALONE)
        dist.broadcast(self._master, 0)
        self._weights.copy_(self._master)

    @torch.no_grad()
    def step(self, step: int) -> float:
        """See `Optimizer`."""
        import torch.distributed as dist

        dist.all_reduce(self._gradients)
        return super().step(step)


class ShardedOptimizer:
    """Every process holds, and moves, its part of each master.

    Args:
        student: in parts.
        config: decay and gradient clipping.
        processes: who hold the others.
    """

    def __init__(self, student: LanguageModel, config: LearnConfig, processes: ProcessGroup) -> None:
        assert student.shards is not None
        self.config, self.processes = config, processes
        self._weights = {name: weight for name, weight in student.shards.weights.items() if weight.requires_grad}
        self.masters: dict[str, Tensor] = {name: weight.detach() for name, weight in self._weights.items()}
        self._adamw = torch.optim.AdamW(
            self._weights.values(), lr=0.0, betas=(0.9, 0.999), weight_decay=config.weight_decay, fused=True
        )
        for weight in self._weights.values():
            self._adamw.state[weight] = {
                "step": torch.zeros((), dtype=torch.float32, device=weight.device),
                "exp_avg": torch.zeros_like(weight, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(weight, requires_grad=False),
            }

    @torch.no_grad()
    def step(self, step: int) -> float:
        """See `Optimizer`."""
        for weight in self._weights.values():
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        parts = [_local(weight.grad) for weight in self._weights.values()]
        squares = torch.stack(torch._foreach_norm(parts)).double().square().sum()
        norm = math.sqrt(self.processes.sum(float(squares.cpu())))
        torch._foreach_mul_(parts, clipping(norm, self.config, step))
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate(self.config, step)
        self._adamw.step()
        self._adamw.zero_grad()
        return norm

    def state(self) -> dict[str, Tensor]:
        """See `Optimizer`; each tensor is a DTensor but for the number of steps."""
        tensors: dict[str, Tensor] = {}
        for name, weight in self._weights.items():
            state = self._adamw.state[weight]
            tensors.setdefault("adamw.step", state["step"])
            tensors[f"master.{name}"] = self.masters[name]
            tensors |= {f"{key}.{name}": state[key] for key in ("exp_avg", "exp_avg_sq")}
        return tensors

    @torch.no_grad()
    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """See `Optimizer`; takes parts that are divided alike."""
        for name, own in self.state().items():
            _local(own).copy_(_local(tensors[name]))
        for weight in self._weights.values():
            self._adamw.state[weight]["step"].copy_(tensors["adamw.step"])

    def close(self) -> None:
        """See `Optimizer`."""
        self._adamw.state.clear()


def _local(tensor: Any) -> Tensor:
    local: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local


def check_together(config: LearnConfig, distributed: bool) -> None:
    """Refuses what processes cannot train together.

    Args:
        config: of the run.
        distributed: whether torchrun has started them.

    Raises:
        ConfigError: they cannot.
    """
    check_parallel(config.parallel, distributed)
    if config.parallel == "fsdp2" and config.weights.kind == "lora" and isinstance(config.teacher, EmaTeacher):
        raise ConfigError("teacher.kind: ema with adapters needs whole weights in every process; use parallel=ddp")


def load_student(source: str | Path, config: LearnConfig, processes: ProcessGroup) -> LanguageModel:
    """The model with the weights that are to be trained, whole or in parts, as `config.parallel` says.

    Raises:
        ConfigError: these processes cannot train together in this way.
        ModelError: see `load_model`.
    """
    check_together(config, processes.distributed)
    sharded = config.parallel == "fsdp2"

    def load() -> LanguageModel:
        student = load_model(source, dtype=config.dtype, masters=True, device=torch.device("cpu") if sharded else None)
        student = trainable(student, config)
        return recomputing(student) if config.activation_checkpointing else student

    if not isinstance(processes, DistributedGroup):
        return load()
    return processes.in_turn(lambda: _divided(load(), processes) if sharded else load())


def make_optimizer(student: LanguageModel, config: LearnConfig, processes: ProcessGroup) -> AnyOptimizer:
    """What moves the student's weights; `config` is resolved."""
    if student.shards is not None:
        return ShardedOptimizer(student, config, processes)
    return ReplicatedOptimizer(student, config) if processes.distributed else Optimizer(student, config, processes)


def _divided(student: LanguageModel, processes: ProcessGroup) -> LanguageModel:
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh(default_device().type, (processes.size,))
    parts: Shards = shard(student.model, student.dtype, mesh)
    return dataclasses.replace(student, shards=parts)
