"""A model of which each process of torchrun holds a part of every weight (FSDP2).

While it is trained, `fully_shard` gathers a layer's weights for its forward and its backward pass, and sums its
gradients to their parts. Its last layer is read outside of any forward pass, so it is gathered by itself, with a
backward pass that sums too. For rollouts and measurements, which run many small steps of unlike number, the whole model
is put together in its compute type for as long as they last: 2 bytes a weight.

Legend: n weights, V vocabulary, H hidden size.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from selftaught.errors import ConfigError
from selftaught.losses.distillation import Head

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

ROWS = 0  # the dimension along which every weight is divided


class Shards:
    """Each process's part of a model's weights, and a place to put the whole together.

    Args:
        skeleton: the model, its weights empty.
        weights: each a DTensor, by the names that they have in the skeleton.
        dtype: to compute in.
    """

    def __init__(self, skeleton: nn.Module, weights: Mapping[str, Any], dtype: torch.dtype) -> None:
        self.skeleton, self.dtype = skeleton, dtype
        # Adapters last: a decoder joins query, key and value without a copy where they lie one behind the other.
        self.weights = dict(sorted(weights.items(), key=lambda named: ".lora_" in named[0]))
        self._flat: Tensor | None = None  # [n] of the whole model; no memory while nobody needs it
        self._users = 0
        layer = plain_of(skeleton).get_output_embeddings()
        names = {id(weight): name for name, weight in skeleton.named_parameters()}
        self._head = names[id(layer.weight)]
        self._bias = names[id(layer.bias)] if getattr(layer, "bias", None) is not None else None

    def head(self) -> Head:
        """The last layer, whole; all must ask for it, and go backward through it, the same number of times."""
        bias = None if self._bias is None else gathered(self.weights[self._bias], self.dtype)
        return Head(gathered(self.weights[self._head], self.dtype), bias)

    @contextmanager
    def whole(self) -> Iterator[nn.Module]:
        """The model with all its weights as they are now, for as long as the block runs. All must enter it."""
        if not self._users:
            self.fill()
        self._users += 1
        try:
            yield self.skeleton
        finally:
            self._users -= 1
            if not self._users and self._flat is not None:
                self._flat.untyped_storage().resize_(0)  # also for those who still look at it

    @torch.no_grad()
    def fill(self) -> nn.Module:
        """Puts the whole model together, weight by weight, to stay."""
        from selftaught.models.load import flat_views

        if self._flat is None:
            device = next(self.skeleton.parameters()).device
            self._flat = torch.empty(sum(w.numel() for w in self.weights.values()), dtype=self.dtype, device=device)
            empty = dict(self.skeleton.named_parameters())
            for name, view in flat_views(self.weights, self._flat).items():
                empty[name].data = view
        self._flat.untyped_storage().resize_(self._flat.numel() * self._flat.element_size())
        for name, view in flat_views(self.weights, self._flat).items():
            view.copy_(gathered(self.weights[name], self.dtype))
        return self.skeleton

    def frozen_copy(self) -> Shards:
        """The same weights as they are now, in the compute type, still in parts."""
        weights = {name: weight.detach().to(self.dtype, copy=True) for name, weight in self.weights.items()}
        return Shards(emptied(self.skeleton), weights, self.dtype)


def plain_of(model: Any) -> Any:
    """The transformers model, also inside peft's wrapper (whose adapters live in its layers)."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def emptied(model: nn.Module) -> nn.Module:
    """A copy without the memory of the weights; tied ones are tied in it as well."""
    memo: dict[int, Any] = {
        id(weight): nn.Parameter(weight.new_empty(0), requires_grad=False) for weight in model.parameters()
    }
    return copy.deepcopy(model, memo)


@torch.no_grad()
def shard(model: nn.Module, dtype: torch.dtype, mesh: DeviceMesh) -> Shards:
    """Leaves each process its rows of every weight: float32 of those that are trained, the compute type of the rest.

    The model is trained on as it is, by its decoder's forward pass.

    Args:
        model: a causal language model or peft's wrapper around it, with float32 weights.
        dtype: to compute in; gradients are summed in float32.
        mesh: of all processes.

    Raises:
        ConfigError: this torch is too old.
    """
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
        raise ConfigError("parallel: fsdp2 needs torch 2.9 or newer; update it, or use parallel=ddp")
    skeleton = emptied(model)
    names = {id(weight): name for name, weight in model.named_parameters()}
    for weight in model.parameters():
        if not weight.requires_grad:
            weight.data = weight.data.to(dtype)
    decoder = plain_of(model).get_decoder()
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    owners = _owners(model)
    for module in (*layers_of(decoder), decoder):
        unit = fully_shard(module, mesh=mesh, mp_policy=policy)
        unit.set_gradient_divide_factor(1.0)  # the losses are means over the whole batch already: parts add up
        unit.set_force_sum_reduction_for_comms(True)  # gloo has no other
    return Shards(skeleton.to(mesh.device_type), _divided(owners, names, mesh), dtype)


def _owners(model: nn.Module) -> list[tuple[nn.Module, str, nn.Parameter]]:
    """Every module that has a weight, its name there, and the weight; tied ones several times."""
    return [
        (module, name, weight)
        for module in model.modules()
        for name, weight in module._parameters.items()
        if weight is not None
    ]


def _divided(
    owners: list[tuple[nn.Module, str, nn.Parameter]], names: Mapping[int, str], mesh: DeviceMesh
) -> dict[str, Any]:
    """The parts by name. Weights outside of the decoder are divided here; those tied to one in it become that one."""
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor

    parts: dict[int, nn.Parameter] = {}
    for module, name, before in owners:
        now = module._parameters[name]
        if isinstance(now, DTensor):
            parts[id(before)] = now
    for module, name, before in owners:
        if id(before) not in parts:
            own = distribute_tensor(before.detach(), mesh, [Shard(ROWS)], src_data_rank=None)
            own = DTensor.from_local(
                own.to_local().clone(), mesh, [Shard(ROWS)], run_check=False, shape=own.shape, stride=own.stride()
            )
            parts[id(before)] = nn.Parameter(own, requires_grad=before.requires_grad)
        module._parameters[name] = parts[id(before)]
    return {names[key]: weight for key, weight in parts.items()}


def layers_of(decoder: nn.Module) -> list[nn.Module]:
    """A decoder's layers: what its first list of modules holds."""
    return list(next(module for module in decoder.modules() if isinstance(module, nn.ModuleList)))


class _Gathered(torch.autograd.Function):
    """Parts → the whole weight in another type; backward, everyone's float32 gradients add up, each in its part."""

    @staticmethod
    def forward(ctx: Any, weight: Any, dtype: torch.dtype) -> Tensor:
        ctx.mesh, ctx.placements = weight.device_mesh, weight.placements
        whole: Tensor = weight.to(dtype).full_tensor()
        return whole

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, None]:
        from torch.distributed.tensor import DTensor, Partial

        everyones = DTensor.from_local(grad.float(), ctx.mesh, [Partial()], run_check=False)
        return everyones.redistribute(placements=ctx.placements), None


def gathered(weight: Any, dtype: torch.dtype) -> Tensor:
    """A whole weight of which each process has a part, with gradient."""
    apply: Any = _Gathered.apply  # torch leaves it untyped
    whole: Tensor = apply(weight, dtype)
    return whole
