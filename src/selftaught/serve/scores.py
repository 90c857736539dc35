"""How likely a model finds tokens: those that were drawn, and those of a prompt that is to be scored.

Legend: n tokens, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from selftaught.models.decoder import Decoder, KeysValues, NewTokens

SCORE_TOKENS = 128  # of a prompt at a time: each has a row of [V] float32 logits


@dataclass(frozen=True)
class TokenScore:
    """A token's log-probability, and those of the likeliest tokens there: the model's own, at temperature 1."""

    logprob: float
    top: tuple[tuple[int, float], ...]


def token_scores(logits: Tensor, ids: Sequence[int], num_top: int) -> list[TokenScore]:
    """Scores of tokens.

    Args:
        logits: [n, V] float32, what predicted each.
        ids: the n tokens.
        num_top: how many of the likeliest tokens come with each.
    """
    logprobs = logits.log_softmax(-1)
    own = logprobs.gather(-1, torch.tensor(ids, device=logits.device)[:, None])[:, 0].tolist()
    values, tokens = (likeliest.tolist() for likeliest in logprobs.topk(min(num_top, logprobs.shape[1])))
    return [TokenScore(one, tuple(zip(*pair))) for one, pair in zip(own, zip(tokens, values), strict=True)]


def run_scored(
    decoder: Decoder, cache: KeysValues, row: int, prompt: Sequence[int], num_top: int
) -> tuple[Tensor, list[TokenScore]]:
    """Runs a prompt into a cache's row, and scores its tokens on the way.

    Returns:
        [1, H] the state of its last token, and the scores of all tokens but the first, which nothing predicts.
    """
    hidden, scores = None, []
    for begin in range(0, len(prompt), SCORE_TOKENS):
        piece = prompt[begin : begin + SCORE_TOKENS]
        hidden = decoder.extend(cache, NewTokens.of([piece], [begin], decoder.model.device), row)  # [n, H]
        following = prompt[begin + 1 : begin + 1 + len(piece)]
        if following:
            scores += token_scores(decoder.logits(hidden[: len(following)]), following, num_top)
    assert hidden is not None, "a prompt has tokens"
    return hidden[-1:], scores
