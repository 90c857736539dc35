"""The teacher: the same model, shown the demonstration, with weights of its own choosing.

* frozen: the weights at the start of the run. With adapters it is the model itself with the adapters
  off; with full weights, a copy in the compute type.
* ema: a moving average of the student's weights, held in float32, in a copy that computes.
* live: the student's own weights.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from selftaught.config import EmaTeacher, FrozenTeacher, Teacher
from selftaught.losses.distillation import Head
from selftaught.models.fast_decoder import make_decoder
from selftaught.models.load import LanguageModel, share_weights
from selftaught.models.prefill import FreshPrompts, PrefixStore, Prompts
from selftaught.processes import ALONE, ProcessGroup


class TeacherModel:
    """A teacher that follows, or does not follow, its student.

    Args:
        student: the model that is trained, in its compute type.
        config: which weights the teacher has.
        prefix_bytes: memory for kept prompts, see `PrefixStore`.
        processes: who shares a frozen teacher's weights, where they have memory in common.
    """

    def __init__(
        self, student: LanguageModel, config: Teacher, prefix_bytes: int, processes: ProcessGroup = ALONE
    ) -> None:
        self.config = config
        self._adapted = hasattr(student.model, "peft_config")
        self._adapter_off = self._adapted and isinstance(config, FrozenTeacher)
        self._average: dict[str, Tensor] = {}
        own_copy = isinstance(config, EmaTeacher) or (isinstance(config, FrozenTeacher) and not self._adapted)
        self.model = student
        if own_copy and student.shards is not None:
            parts = student.shards.frozen_copy()
            self.model = dataclasses.replace(student, model=parts.skeleton, shards=parts)
        elif own_copy:
            self.model = dataclasses.replace(student, model=_frozen_copy(student))
            # a moving average is each process's own: all write it at once
            shared = self.frozen and not processes.distributed
            share_weights(dict(self.model.model.named_parameters()), student.dtype, processes if shared else ALONE)
        self._whole = self.model  # while it is active
        self._prefix_bytes = prefix_bytes
        self._store: PrefixStore | None = None

    @property
    def frozen(self) -> bool:
        """Whether it stays as it was when the run began."""
        return isinstance(self.config, FrozenTeacher)

    @contextlib.contextmanager
    def active(self) -> Iterator[LanguageModel]:
        """The teacher's model, whole, with the adapters off for as long as the block runs where that is what it means.

        All processes must enter it.
        """
        with self.model.whole() as whole:
            self._whole = whole
            with whole.model.disable_adapter() if self._adapter_off else contextlib.nullcontext():  # type: ignore[operator]
                yield whole

    def head(self) -> Head:
        """Its last layer, which no adapter touches."""
        return self.model.head.detached()

    def prompts(self, tokens: Sequence[Sequence[int]]) -> Prompts:
        """Prompts to sample from, or to score completions after; a frozen teacher keeps what it has run.

        Call it, and use what it returns, inside `active`.
        """
        if not self.frozen:
            return FreshPrompts(make_decoder(self._whole), tokens)
        if self._store is None:  # its decoder sees the same memory whenever the teacher is active
            self._store = PrefixStore(make_decoder(self._whole), self._prefix_bytes)
        return self._store.prompts(tokens)

    @torch.no_grad()
    def update(self, student: LanguageModel, masters: Mapping[str, Tensor]) -> None:
        """Follows the student after an optimiser step: θ̄ ← (1 − rate) θ̄ + rate θ for an ema teacher."""
        if isinstance(self.config, FrozenTeacher):
            return
        if isinstance(self.config, EmaTeacher):
            for name, weight in effective_weights(student, masters).items():
                self._average[name].lerp_(weight, self.config.rate)
            self._write_average()

    def start(self, student: LanguageModel, masters: Mapping[str, Tensor]) -> None:
        """Takes the student's present weights as the start of the average."""
        if isinstance(self.config, EmaTeacher):
            self._average = {name: w.detach().clone() for name, w in effective_weights(student, masters).items()}

    def state(self) -> dict[str, Tensor]:
        """What a resumed run needs beyond the student's own state."""
        return {f"ema.{name}": value for name, value in self._average.items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Goes back to a state."""
        for name in self._average:
            self._average[name].copy_(tensors[f"ema.{name}"])
        self._write_average()

    @torch.no_grad()
    def _write_average(self) -> None:
        parts = self.model.shards
        weights = dict(self.model.model.named_parameters()) if parts is None else parts.weights
        for name, value in self._average.items():
            weights[name].copy_(value)


def effective_weights(student: LanguageModel, masters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The student's trained weights in float32, under the names that they have in the plain model.

    For adapters that is W + (alpha/rank) B A: an average of products, not a product of averages.
    """
    if not hasattr(student.model, "peft_config"):
        return dict(masters)
    from peft.tuners.tuners_utils import BaseTunerLayer

    weights = {}
    for name, module in student.plain_model.named_modules():
        if isinstance(module, BaseTunerLayer):
            adapter = module.active_adapters[0]
            prefix = f"base_model.model.{name}"
            a = masters[f"{prefix}.lora_A.{adapter}.weight"]
            b = masters[f"{prefix}.lora_B.{adapter}.weight"]
            if getattr(module, "fan_in_fan_out", False):  # layers that keep their weight transposed
                a, b = b.T, a.T
            weights[f"{name}.weight"] = module.get_base_layer().weight.float() + module.scaling[adapter] * (b @ a)
    return weights


def _frozen_copy(student: LanguageModel) -> torch.nn.Module:
    """The plain model with the adapters' present effect merged in, taking no gradients."""
    with torch.no_grad():
        model: Any = copy.deepcopy(student.model)
        if hasattr(model, "merge_and_unload"):
            model = model.merge_and_unload()
    frozen: torch.nn.Module = model.requires_grad_(False).eval()
    return frozen
