"""How a token is drawn, from the definition, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from selftaught.rollout.sampler import Sampling


def drawn(logits: Tensor, sampling: Sampling, uniform: Tensor) -> int:
    """The token at a uniform number: by inverting the cumulative distribution, of the nucleus likeliest first.

    Args:
        logits: [V].
        sampling: a temperature above 0, and top-p.
        uniform: one number in [0, 1).
    """
    probs = (logits.double() / sampling.temperature).softmax(-1)
    order = probs.argsort(descending=True) if sampling.top_p < 1 else torch.arange(len(probs))
    probs = probs[order]
    if sampling.top_p < 1:
        probs = probs * (probs.cumsum(-1) - probs < sampling.top_p)
    ends = probs.cumsum(-1)
    return int(order[int((ends <= uniform.double() * ends[-1]).sum())])
