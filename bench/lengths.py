"""Makes our sampler end each completion at a length of its own, as trl_worker.py does for TRL's."""

from __future__ import annotations

from collections.abc import Mapping

from selftaught.rollout.batch import Row


def set_lengths(lengths: Mapping[tuple[int, ...], int]) -> None:
    """From now on, completions of these prompts end at so many tokens, and those of others at the sampler's limit.

    Only for this process, and for a model without stop tokens, which would end them sooner.
    """

    def room(row: Row) -> int:
        return lengths.get(tuple(row.prompt), row.sampling.max_new_tokens) - len(row.ids)

    Row.room = property(room)  # type: ignore[assignment, method-assign]
