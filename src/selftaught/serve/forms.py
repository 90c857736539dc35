"""Answers in OpenAI's forms."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import Any

from selftaught.serve.answering import Choice, Part, Scored
from selftaught.serve.text import UNFINISHED


def usage(num_prompt: int, num_completion: int) -> dict[str, int]:
    """How many tokens a request took."""
    return {
        "prompt_tokens": num_prompt,
        "completion_tokens": num_completion,
        "total_tokens": num_prompt + num_completion,
    }


def chat_answer(head: dict[str, Any], choices: Sequence[Choice], used: dict[str, int], tokenizer: Any) -> Any:
    """A whole chat completion. `head` has its id, time and model."""
    listed = [
        {
            "index": index,
            "message": {"role": "assistant", "content": choice.text, "refusal": None},
            "logprobs": chat_scores(choice.scores, tokenizer),
            "finish_reason": choice.finish,
        }
        for index, choice in enumerate(choices)
    ]
    return {**head, "object": "chat.completion", "choices": listed, "usage": used}


def chat_chunk(head: dict[str, Any], part: Part, tokenizer: Any, first: bool) -> dict[str, Any]:
    """A piece of a streamed one."""
    delta: dict[str, Any] = {"role": "assistant"} if first else {}
    if part.text or first:
        delta["content"] = part.text
    choice = {
        "index": part.index,
        "delta": delta,
        "logprobs": chat_scores(part.scores, tokenizer),
        "finish_reason": part.finish,
    }
    return {**head, "object": "chat.completion.chunk", "choices": [choice]}


def text_answer(head: dict[str, Any], choices: Sequence[Choice], used: dict[str, int], tokenizer: Any) -> Any:
    """A whole text completion."""
    listed = [
        {
            "index": index,
            "text": choice.text,
            "logprobs": text_scores(choice.scores, tokenizer, 0),
            "finish_reason": choice.finish,
        }
        for index, choice in enumerate(choices)
    ]
    return {**head, "object": "text_completion", "choices": listed, "usage": used}


def text_chunk(head: dict[str, Any], part: Part, tokenizer: Any, begin: int) -> dict[str, Any]:
    """A piece of a streamed one; its first token begins at character `begin`."""
    choice = {
        "index": part.index,
        "text": part.text,
        "logprobs": text_scores(part.scores, tokenizer, begin),
        "finish_reason": part.finish,
    }
    return {**head, "object": "text_completion", "choices": [choice]}


def chat_scores(scores: Sequence[Scored], tokenizer: Any) -> dict[str, Any] | None:
    """Log-probabilities as chat completions have them."""
    if not scores:
        return None
    content = []
    for token, score in scores:
        assert score is not None, "a conversation is not repeated"
        top = [_scored(other, value, tokenizer) for other, value in score.top]
        content.append({**_scored(token, score.logprob, tokenizer), "top_logprobs": top})
    return {"content": content, "refusal": None}


def text_scores(scores: Sequence[Scored], tokenizer: Any, begin: int) -> dict[str, Any] | None:
    """Log-probabilities as text completions have them; where two tokens look alike, the likelier counts."""
    if not scores:
        return None
    shown = cache(lambda token: _shown(token, tokenizer))
    tokens = [shown(token) for token, _ in scores]
    return {
        "tokens": tokens,
        "token_logprobs": [score and score.logprob for _, score in scores],
        "top_logprobs": [
            score and {shown(other): value for other, value in reversed(score.top)} for _, score in scores
        ],
        "text_offset": list(accumulate(map(len, tokens[:-1]), initial=begin)),
    }


def _scored(token: int, logprob: float, tokenizer: Any) -> dict[str, Any]:
    text = _shown(token, tokenizer)
    return {"token": text, "logprob": logprob, "bytes": None if UNFINISHED in text else list(text.encode("utf-8"))}


def _shown(token: int, tokenizer: Any) -> str:
    return str(tokenizer.decode([token], clean_up_tokenization_spaces=False))
