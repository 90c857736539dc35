"""One request's completions: asked of an engine, and turned into text as they come."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from selftaught.rollout.sampler import Sampling
from selftaught.serve.engine import Engine, Piece, Request
from selftaught.serve.scores import TokenScore
from selftaught.serve.text import Text

SEED_STEP = 0x9E3779B97F4A7C15  # between the seeds of a request's choices


class Refused(Exception):
    """A request that is not answered.

    Attributes:
        status: of HTTP.
        message: for the client.
        kind: OpenAI's type of the error.
        code: OpenAI's code.
        param: the field that is wrong.
        retry_seconds: after which it may be asked again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        retry_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind = status, message, kind
        self.code, self.param, self.retry_seconds = code, param, retry_seconds


@dataclass(frozen=True)
class Wanted:
    """How the completions of a request are drawn.

    Attributes:
        max_tokens: longest one.
        temperature: 0 is greedy.
        top_p: nucleus.
        choices: completions of each prompt.
        seed: of all of them; None is a new one.
        stops: strings that end one.
        num_scores: likeliest tokens that are scored at each place; None scores nothing.
        echo: what the completions of each prompt begin with, whose tokens are then scored too; None is nothing.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    choices: int = 1
    seed: int | None = None
    stops: Sequence[str] = ()
    num_scores: int | None = None
    echo: Sequence[str] | None = None


Scored = tuple[int, TokenScore | None]
"""A token and its score; None for a prompt's first, which nothing predicts."""


@dataclass
class Choice:
    """One completion.

    Attributes:
        text: so far.
        finish: "stop" or "length" at the end.
        num_tokens: drawn.
        scores: of each, if they were asked for.
    """

    text: str = ""
    finish: str | None = None
    num_tokens: int = 0
    scores: list[Scored] = field(default_factory=list)


@dataclass(frozen=True)
class Part:
    """What is new of a choice."""

    index: int
    text: str
    scores: Sequence[Scored]
    finish: str | None


class Answering:
    """The completions of one request, under way.

    Args:
        engine: who draws them.
        prompts: token ids; each gets `wanted.choices` completions, in this order.
        wanted: how.

    Raises:
        Refused: a prompt and its completion do not fit the model.
        Busy: too many requests wait.
    """

    def __init__(self, engine: Engine, prompts: Sequence[Sequence[int]], wanted: Wanted) -> None:
        self._engine = engine
        self._echoes = wanted.echo is not None
        self._queue: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        seed = secrets.randbits(63) if wanted.seed is None else wanted.seed
        sampling = Sampling(wanted.max_tokens, wanted.temperature, wanted.top_p)
        self.choices: list[Choice] = []
        self._texts: list[Text] = []
        self._requests: list[Request] = []
        for prompt, begin in zip(prompts, wanted.echo or [""] * len(prompts), strict=True):
            _check_fit(prompt, wanted.max_tokens, engine.max_tokens)
            for number in range(wanted.choices):
                index = len(self.choices)

                def deliver(piece: Piece, index: int = index) -> None:
                    loop.call_soon_threadsafe(self._queue.put_nowait, (index, piece))

                own_seed = (seed + number * SEED_STEP) % 2**63
                scored = self._echoes and wanted.num_scores is not None
                self._requests.append(Request(prompt, sampling, own_seed, deliver, wanted.num_scores, scored))
                self._texts.append(Text(engine.model.tokenizer, wanted.stops))
                self.choices.append(Choice(begin))
        engine.submit(self._requests)

    @property
    def num_tokens(self) -> int:
        """Tokens drawn so far."""
        return sum(choice.num_tokens for choice in self.choices)

    async def parts(self, deadline: float) -> AsyncIterator[Part]:
        """What is new, as it comes, until all choices are done; whoever leaves early gives them up.

        Args:
            deadline: till when, by the monotonic clock.

        Raises:
            Refused: the engine failed, or it is past the deadline.
        """
        open_ones = len(self.choices)
        try:
            while open_ones:
                try:
                    index, piece = await asyncio.wait_for(self._queue.get(), deadline - time.monotonic())
                except asyncio.TimeoutError as error:
                    raise Refused(504, "the answer took too long", "server_error", "timeout") from error
                if self.choices[index].finish is not None:
                    continue  # a stop string was met, and the engine had not heard of it yet
                part = self._taken(index, piece)
                open_ones -= part.finish is not None
                if part.text or part.scores or part.finish:
                    yield part
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Gives up what is not done."""
        for choice, request in zip(self.choices, self._requests, strict=True):
            if choice.finish is None:
                self._engine.cancel(request)

    def _taken(self, index: int, piece: Piece) -> Part:
        if piece.finish == "error":
            raise Refused(500, "the model failed; ask again", "server_error")
        choice, text = self.choices[index], self._texts[index]
        choice.num_tokens += len(piece.ids)
        new = text.add(piece.ids)
        finish = piece.finish
        if finish and not text.stopped:
            new += text.end()
        if text.stopped:
            finish = "stop"
            self._engine.cancel(self._requests[index])
        scores = self._scored(index, piece)
        choice.text += new
        choice.scores += scores
        choice.finish = finish
        return Part(index, new, scores, finish)

    def _scored(self, index: int, piece: Piece) -> list[Scored]:
        """Whoever has the prompt repeated looks for each token's place, so the one that ends it is told there too."""
        stop_ids = () if self._echoes else self._engine.model.stop_ids
        drawn: list[Scored] = [pair for pair in zip(piece.ids, piece.scores) if pair[0] not in stop_ids]
        request = self._requests[index]
        if not request.score_prompt or self.choices[index].scores:
            return drawn
        return [*zip(request.prompt, (None, *piece.prompt_scores), strict=True), *drawn]


def _check_fit(prompt: Sequence[int], max_tokens: int, room: int) -> None:
    if not prompt:
        raise Refused(400, "the prompt is empty", code="invalid_prompt", param="prompt")
    if len(prompt) + max_tokens > room:
        raise Refused(
            400,
            f"This model takes {room} tokens; the request has {len(prompt)} in the prompt and asks for {max_tokens} "
            "more. Shorten the prompt, or ask for fewer with max_tokens.",
            code="context_length_exceeded",
            param="messages",
        )
