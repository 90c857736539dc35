"""One token from logits, by inverting the cumulative distribution at a uniform number.

What is drawn follows from the logits and that number alone, so a row has the same tokens whoever
shares its batch, and whether they are drawn one by one or verified in a draft.

Legend: n rows, V vocabulary, b blocks of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from selftaught.rollout.sampler import Sampling

BLOCK = 256  # tokens summed at once: the cumulative distribution is only made of sums, and of one block a row
FIRST_LOOK = 512  # likeliest tokens that a nucleus is first looked for in


def draw(logits: Tensor, sampling: Sampling, uniform: Tensor | None = None) -> Tensor:
    """One token a row.

    Args:
        logits: [n, V] float32.
        sampling: temperature (0 takes the likeliest token) and top-p.
        uniform: [n] in [0, 1); needed unless the temperature is 0.

    Returns:
        [n] token ids.
    """
    if sampling.temperature == 0 or uniform is None:
        return logits.argmax(-1)
    mass = ((logits - logits.amax(-1, keepdim=True)) / sampling.temperature).exp_()
    return _from_nucleus(mass, sampling.top_p, uniform) if sampling.top_p < 1 else _from_all(mass, uniform)


def _from_all(mass: Tensor, uniform: Tensor) -> Tensor:
    """[n, V] unnormalised probabilities → [n]: first which block, then which token in it."""
    num_rows, size = mass.shape
    wide = _wide(mass)
    blocks = torch.nn.functional.pad(mass, (0, -size % BLOCK)).view(num_rows, -1, BLOCK)  # [n, b, BLOCK]
    sums = blocks.sum(-1, dtype=wide)  # [n, b]
    ends = sums.cumsum(-1)
    target = uniform.to(wide)[:, None] * ends[:, -1:]
    block = torch.searchsorted(ends, target, right=True).clamp_(max=ends.shape[1] - 1)  # [n, 1]
    begin = (ends - sums).gather(1, block)
    inside = blocks[torch.arange(num_rows, device=mass.device), block[:, 0]].to(wide).cumsum(-1)  # [n, BLOCK]
    # a target that rounding puts past the block's end takes its last token that has any mass
    target = torch.minimum(target - begin, inside[:, -1:].nextafter(inside.new_zeros(())))
    token = torch.searchsorted(inside, target, right=True)
    return (block * BLOCK + token)[:, 0].clamp_(max=size - 1)


def _from_nucleus(mass: Tensor, top_p: float, uniform: Tensor) -> Tensor:
    """The same among the likeliest tokens that hold `top_p` of the mass, likeliest first."""
    wide = _wide(mass)
    wanted = top_p * mass.sum(-1, keepdim=True, dtype=wide)
    ordered, order = mass.topk(min(FIRST_LOOK, mass.shape[1]), dim=-1)  # a full sort costs twenty times as much
    if bool((ordered.sum(-1, keepdim=True, dtype=wide) < wanted).any()):
        ordered, order = mass.sort(-1, descending=True)
    ends = ordered.to(wide).cumsum(-1)
    inside = ends - ordered < wanted  # the first token always is
    ends = (ordered.to(wide) * inside).cumsum(-1)
    place = torch.searchsorted(ends, uniform.to(wide)[:, None] * ends[:, -1:], right=True)
    return order.gather(-1, torch.minimum(place, inside.sum(-1, keepdim=True) - 1))[:, 0]


def _wide(mass: Tensor) -> torch.dtype:
    """The type to sum in: Apple's GPUs have no float64."""
    return torch.float32 if mass.device.type == "mps" else torch.float64
