"""Answers many requests at once with one model: continuous batching on the project's own sampler.

One thread owns the model. Requests wait in a bounded queue, are let into the running batch as places come free, and
hand each token over as soon as it is drawn. What a request gets does not depend on who shares the batch.

Legend: R rows, H hidden size.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from selftaught.errors import SelftaughtError
from selftaught.models.decoder import KeysValues
from selftaught.models.fast_decoder import make_decoder
from selftaught.models.load import LanguageModel
from selftaught.models.prefill import FreshPrompts
from selftaught.rollout.batch import Batch, Row, new_row
from selftaught.rollout.sampler import Sampling
from selftaught.serve.scores import TokenScore, run_scored, token_scores

logger = logging.getLogger(__name__)

ADMIT_TOKENS = 2048  # prompt tokens let in between two steps: those at work wait for them


class Busy(SelftaughtError, RuntimeError):
    """More requests wait than may."""


@dataclass(frozen=True)
class Piece:
    """What was drawn since the last one.

    Attributes:
        ids: tokens, the stop token included where it ended itself.
        scores: one for each, if they were asked for.
        finish: "stop", "length", "error", or None while it goes on.
        prompt_scores: with the first piece, one for each token of the prompt but the first, if they were asked for.
    """

    ids: tuple[int, ...]
    scores: tuple[TokenScore, ...] = ()
    finish: str | None = None
    prompt_scores: tuple[TokenScore, ...] = ()


@dataclass(eq=False)
class Request:
    """One completion that is asked for.

    Attributes:
        prompt: token ids.
        sampling: its settings.
        seed: of what is drawn.
        deliver: called in the engine's thread with each piece.
        num_scores: how many of the likeliest tokens are scored at each place; None scores nothing.
        score_prompt: the prompt's tokens are scored too; needs `num_scores`.
        cancelled: nobody waits for it any longer.
    """

    prompt: Sequence[int]
    sampling: Sampling
    seed: int
    deliver: Callable[[Piece], None]
    num_scores: int | None = None
    score_prompt: bool = False
    cancelled: bool = False
    row: Row | None = field(default=None, init=False, repr=False)
    prompt_scores: tuple[TokenScore, ...] = field(default=(), init=False, repr=False)  # that are not told yet
    num_told: int = field(default=0, init=False, repr=False)


@dataclass(frozen=True)
class Limits:
    """What an engine may use.

    Attributes:
        max_rows: requests answered at once.
        max_waiting: requests that wait beside them.
        cache_tokens: keys and values held, in tokens of all rows.
    """

    max_rows: int = 64
    max_waiting: int = 256
    cache_tokens: int = 32768


class Engine:
    """A model at work in a thread of its own.

    Args:
        model: who answers; its weights must not change.
        limits: what it may use.
    """

    def __init__(self, model: LanguageModel, limits: Limits = Limits()) -> None:  # it is frozen
        self.model = model
        self.limits = limits
        self.max_tokens = min(model.max_tokens, limits.cache_tokens)  # prompt and completion of one request
        self._decoder = make_decoder(model, num_steps=1 << 20)
        self._batch = Batch(self._decoder, 1, 1)
        self._waiting: deque[Request] = deque()
        self._running: list[Request] = []
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name=f"engine {model.path.name}", daemon=True)
        self._thread.start()

    @property
    def num_running(self) -> int:
        """Requests that are being answered."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    def submit(self, requests: Sequence[Request]) -> None:
        """Takes requests in, all or none; their pieces come in the engine's thread.

        Raises:
            Busy: too many wait, or the engine is closing.
        """
        with self._changed:
            if self._closing:
                raise Busy("the server is stopping; ask again later")
            if len(self._waiting) + len(requests) > self.limits.max_waiting:
                raise Busy(f"{len(self._waiting)} requests wait already; ask again in a moment")
            self._waiting.extend(requests)
            self._changed.notify()

    def cancel(self, request: Request) -> None:
        """Gives a request up; nothing more of it is delivered, but for a piece under way."""
        request.cancelled = True

    def close(self) -> None:
        """Takes no more requests, answers those it has, and ends."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # ------------------------------------------------------------------------------- the engine's thread

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._waiting or self._running or self._closing):
                    self._changed.wait()
                if self._closing and not (self._waiting or self._running):
                    return
                admitted = self._admitted()
            try:
                with torch.no_grad():
                    self._admit(admitted)
                    self._drop_cancelled()
                    self._batch.step()
                    self._hand_over()
            except Exception:  # the others must still be answered; those at work are told
                logger.exception("an engine's step failed")
                self._fail()

    def _admitted(self) -> list[Request]:
        """The next requests for which there is room, oldest first: none overtakes a long one for good."""
        chosen: list[Request] = []
        spans = [row.span for row in self._batch.rows]
        tokens = 0
        while self._waiting:
            request = self._waiting[0]
            if request.cancelled:
                self._waiting.popleft()
                continue
            spans.append(len(request.prompt) + request.sampling.max_new_tokens)
            tokens += len(request.prompt)
            full = len(spans) > min(self.limits.max_rows, self.limits.cache_tokens // max(spans))
            if full or (chosen and tokens > ADMIT_TOKENS):
                break
            chosen.append(self._waiting.popleft())
        self._running += chosen
        return chosen

    def _admit(self, requests: Sequence[Request]) -> None:
        """Lets requests into the batch, whose cache is made to fit: rows × longest row ≤ `cache_tokens`."""
        if not requests:
            return
        rows = []
        plain = [request for request in requests if not request.score_prompt]
        scored = [request for request in requests if request.score_prompt]
        for request in plain + scored:
            keep = request.num_scores is not None
            request.row = new_row(request.prompt, request.sampling, request.seed, self._decoder, keep)
            rows.append(request.row)
        wanted = len(self._batch.rows) + len(rows)
        most = self.limits.cache_tokens // max(row.span for row in [*self._batch.rows, *rows])
        self._batch.fit(wanted, min(self.limits.max_rows, most))
        self._batch.admit(rows, lambda cache, first: self._load(plain, scored, cache, first))

    def _load(self, plain: Sequence[Request], scored: Sequence[Request], cache: KeysValues, first: int) -> Tensor:
        """Runs prompts into the places from `first` on; [R, H] the states of their last tokens."""
        states = []
        if plain:
            prompts = FreshPrompts(self._decoder, [request.prompt for request in plain])
            states.append(prompts.load(cache, first, range(len(plain))))
        for place, request in enumerate(scored, first + len(plain)):
            last, scores = run_scored(self._decoder, cache, place, request.prompt, request.num_scores or 0)
            request.prompt_scores = tuple(scores)
            states.append(last)
        return torch.cat(states)

    def _drop_cancelled(self) -> None:
        gone = [request for request in self._running if request.cancelled]
        if gone:
            self._batch.release(frozenset(request.row for request in gone if request.row is not None))
            self._running = [request for request in self._running if not request.cancelled]

    def _hand_over(self) -> None:
        """Delivers what was drawn since the last time, and takes leave of those that are done."""
        for request in self._running:
            row = request.row
            assert row is not None
            finish = "stop" if row.ended else "length" if row.done else None
            ids = tuple(row.ids[request.num_told :])
            request.num_told = len(row.ids)
            prompt_scores, request.prompt_scores = request.prompt_scores, ()
            request.deliver(Piece(ids, self._scores(request, ids), finish, prompt_scores))
        self._running = [request for request in self._running if request.row is not None and not request.row.done]

    def _scores(self, request: Request, ids: Sequence[int]) -> tuple[TokenScore, ...]:
        """Log-probabilities of the newest tokens, from the states that predicted them."""
        row = request.row
        if request.num_scores is None or row is None or not row.states or not ids:
            return ()
        states = torch.cat(row.states)
        row.states.clear()
        return tuple(token_scores(self._decoder.logits(states), ids, request.num_scores))

    def _fail(self) -> None:
        failed, self._running = self._running, []
        self._batch = Batch(self._decoder, 1, 1)
        for request in failed:
            request.deliver(Piece((), (), "error"))
