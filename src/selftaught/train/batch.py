"""Which rows a step takes, and with what randomness. All of it follows from the seed and the step."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from selftaught.processes import ProcessGroup


@dataclass(frozen=True)
class TrainRow:
    """A row ready for training, as token ids.

    Attributes:
        id: the example's id.
        prompt: what the student sees.
        teacher_prompt: what the teacher sees (SDFT).
        target: the tokens whose likelihood SFT raises: the demonstration's, or what another method puts in its place.
    """

    id: str
    prompt: tuple[int, ...]
    teacher_prompt: tuple[int, ...] = ()
    target: tuple[int, ...] = ()


def batch_indices(num_items: int, batch_size: int, step: int, seed: int) -> list[int]:
    """The items of a step (0-based): epoch after epoch, each in an order of its own.

    The order follows from the seed and the step alone, so a resumed run needs no saved state.
    """
    indices = []
    for position in range(step * batch_size, (step + 1) * batch_size):
        epoch, place = divmod(position, num_items)
        indices.append(_epoch_order(num_items, epoch, seed)[place])
    return indices


@lru_cache(maxsize=4)
def _epoch_order(num_items: int, epoch: int, seed: int) -> tuple[int, ...]:
    order = list(range(num_items))
    random.Random(f"order/{seed}/{epoch}").shuffle(order)
    return tuple(order)


def dealt(indices: Sequence[int], processes: ProcessGroup) -> list[int]:
    """The places in a batch that are this process's: as many as others have, and mostly the same rows each time.

    So what a process keeps of a row is of use again, and copies of a row are together.
    """
    size, rank = processes.size, processes.rank
    order = sorted(range(len(indices)), key=lambda place: (indices[place] % size, indices[place], place))
    return order[len(order) * rank // size : len(order) * (rank + 1) // size]


def row_seed(seed: int, stream: int | str, row: int) -> int:
    """The seed of one row's rollout in one stream, such as a step."""
    return random.Random(f"rollout/{seed}/{stream}/{row}").getrandbits(62)
