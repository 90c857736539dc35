"""Signs that a run goes wrong, and when to end it.

Long runs of self-distillation fail by answers that grow, repeat themselves and no longer end, by a student that runs
away from its teacher, or from the base. Each sign is compared with its own best so far, since a model that was never
taught may repeat itself and ramble too: a run is ended when a sign's mean over the last `window` steps lies more than
its bound above the lowest such mean of the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from selftaught.config import GuardConfig

SIGNS = {
    "repetition": "its answers repeat themselves",
    "unended": "its answers no longer end",
    "gap_nats": "it moves away from what it is taught",
    "anchor_nats": "it moves away from the base",
}
NGRAM = 4


def repetition(ids: Sequence[int]) -> float:
    """Share of a completion's runs of four tokens that it has said before; 0 for fewer than five tokens."""
    runs = [tuple(ids[start : start + NGRAM]) for start in range(len(ids) - NGRAM + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def watches(config: GuardConfig) -> bool:
    """Whether any sign has a bound."""
    return any(getattr(config, sign) is not None for sign in SIGNS)


def trouble(steps: Sequence[Mapping[str, Any]], config: GuardConfig) -> str | None:
    """What has gone wrong by the last of some steps, in words; None if nothing has.

    Args:
        steps: each step's signs, from the run's first; a sign that is None or missing in a step does not count.
        config: window and bounds.
    """
    for sign, words in SIGNS.items():
        bound = getattr(config, sign)
        values = [step[sign] for step in steps if step.get(sign) is not None]
        if bound is None or len(values) <= config.window:
            continue
        sums = list(accumulate(values, initial=0.0))
        means = [(end - start) / config.window for start, end in zip(sums, sums[config.window :])]
        if means[-1] > min(means) + bound:
            return f"{words} ({sign} rose from {min(means):.2f} to {means[-1]:.2f})"
    return None
