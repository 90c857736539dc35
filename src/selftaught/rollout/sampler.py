"""What every sampler takes and gives back, whichever engine draws."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

NOT_KEPT = torch.empty(0)


@dataclass(frozen=True)
class Sampling:
    """How to draw.

    Attributes:
        max_new_tokens: a completion ends here if it has not ended itself.
        temperature: 0 is greedy.
        top_p: draw from the likeliest tokens that hold this much mass.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0


@dataclass(frozen=True)
class Completion:
    """What a model answered.

    Attributes:
        ids: its tokens, the stop token included where it ended itself.
        ended: whether it ended with a stop token, rather than at the length limit.
        states: [T, H] the states that predicted each token, if they were asked for, else empty.
    """

    ids: tuple[int, ...]
    ended: bool
    states: Tensor = field(default=NOT_KEPT, compare=False)
