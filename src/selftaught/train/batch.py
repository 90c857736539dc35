"""Which rows a step takes, and with what randomness. All of it follows from the seed and the step."""

from __future__ import annotations

import random


def batch_indices(num_items: int, batch_size: int, step: int, seed: int) -> list[int]:
    """The items of a step (0-based): epoch after epoch, each in an order of its own.

    The order follows from the seed and the step alone, so a resumed run needs no saved state.
    """
    indices = []
    for position in range(step * batch_size, (step + 1) * batch_size):
        epoch, place = divmod(position, num_items)
        indices.append(_epoch_order(num_items, epoch, seed)[place])
    return indices


def _epoch_order(num_items: int, epoch: int, seed: int) -> list[int]:
    order = list(range(num_items))
    random.Random(f"order/{seed}/{epoch}").shuffle(order)
    return order


def row_seed(seed: int, step: int, row: int) -> int:
    """The seed of one row's rollout in one step."""
    return random.Random(f"rollout/{seed}/{step}/{row}").getrandbits(62)
