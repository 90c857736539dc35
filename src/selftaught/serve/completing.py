"""From a request to its answer, at once or as a stream."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from selftaught.ledger.records import Version
from selftaught.prompts import render
from selftaught.serve import forms
from selftaught.serve.answering import Answering, Choice, Part, Refused, Wanted
from selftaught.serve.engine import Engine
from selftaught.serve.keys import Key
from selftaught.serve.metrics import Metrics
from selftaught.serve.protocol import MAX_COMPLETIONS, MAX_PROMPT_SCORES, ChatAsked, Drawing, TextAsked, error_body
from selftaught.serve.records import Records
from selftaught.serve.settings import ServeSettings
from selftaught.serve.versions import Versions
from selftaught.types import Message

GONE = 499  # status, in the counts, of a request whose client left

Keep = Callable[[str, Sequence[Choice]], Awaitable[None]]
"""(the request's id, its choices): writes them down."""


class Completing:
    """Answers requests.

    Args:
        versions: who answers.
        records: what is kept.
        metrics: what is counted.
        settings: limits.
    """

    def __init__(self, versions: Versions, records: Records, metrics: Metrics, settings: ServeSettings) -> None:
        self._versions, self._records, self._metrics, self._settings = versions, records, metrics, settings

    async def chat(self, asked: ChatAsked, request: Request, key: Key) -> Response:
        """POST /v1/chat/completions.

        Raises:
            Refused: with what the client did wrong.
        """
        messages = [Message("system" if turn.role == "developer" else turn.role, turn.text) for turn in asked.messages]
        version, engine = await self._asked_version(asked.model)
        prompt = await asyncio.to_thread(_rendered, messages, engine)
        await self._records.follow_up(key, messages)

        async def keep(name: str, choices: Sequence[Choice]) -> None:
            await self._records.keep(key, name, version.name, messages, [choice.text for choice in choices])

        scores = (asked.top_logprobs or 0) if asked.logprobs else None
        wanted = self._wanted(asked, asked.max_completion_tokens or asked.max_tokens, scores, [prompt], engine)
        head = _head("chatcmpl", version)
        job = _Job(head, engine, [prompt], wanted, self._metrics, self._settings.request_seconds, keep)
        return await _told(job, asked, request, forms.chat_answer, _chat_chunks())

    async def text(self, asked: TextAsked, request: Request) -> Response:
        """POST /v1/completions: a prompt is gone on from as it is, without the model's chat template.

        Raises:
            Refused: with what the client did wrong.
        """
        _check_text(asked)
        version, engine = await self._asked_version(asked.model)
        prompts = [_tokens(prompt, engine) for prompt in asked.prompts]
        wanted = self._wanted(asked, asked.max_tokens, asked.logprobs, prompts, engine)
        if asked.echo:
            _check_scores(asked, prompts)
            wanted = replace(wanted, echo=[_text(prompt, engine) for prompt in asked.prompts])
        head = _head("cmpl", version)
        job = _Job(head, engine, prompts, wanted, self._metrics, self._settings.request_seconds, _not_kept)
        return await _told(job, asked, request, forms.text_answer, _text_chunks())

    async def _asked_version(self, name: str) -> tuple[Version, Engine]:
        version = self._versions.named(name)
        return version, await self._versions.engine(version)

    def _wanted(
        self,
        asked: Drawing,
        max_tokens: int | None,
        num_scores: int | None,
        prompts: Sequence[Sequence[int]],
        engine: Engine,
    ) -> Wanted:
        """How it is drawn; a completion whose length is not named gets what the prompt leaves, up to the default."""
        left = max(1, engine.max_tokens - max(map(len, prompts)))
        return Wanted(
            min(self._settings.max_tokens, left) if max_tokens is None else max_tokens,
            1.0 if asked.temperature is None else asked.temperature,
            1.0 if asked.top_p is None else asked.top_p,
            asked.n or 1,
            asked.seed,
            asked.stops,
            num_scores,
        )


class _Job:
    """A request that is being answered.

    Args:
        head: its id, time and model, as they are told.
        engine: who answers.
        prompts: token ids.
        wanted: how.
        metrics: what is counted.
        seconds: that it may take.
        keep: writes the choices down.

    Raises:
        Refused: it does not fit the model.
        Busy: too many requests wait.
    """

    def __init__(
        self,
        head: dict[str, Any],
        engine: Engine,
        prompts: Sequence[Sequence[int]],
        wanted: Wanted,
        metrics: Metrics,
        seconds: float,
        keep: Keep,
    ) -> None:
        self.head, self.tokenizer = head, engine.model.tokenizer
        self._num_prompt, self._metrics, self._keep = sum(map(len, prompts)), metrics, keep
        self._begun = time.monotonic()
        self._deadline = self._begun + seconds
        self._answering = Answering(engine, prompts, wanted)

    @property
    def choices(self) -> Sequence[Choice]:
        """Its completions so far."""
        return self._answering.choices

    @property
    def usage(self) -> dict[str, int]:
        """Tokens so far."""
        return forms.usage(self._num_prompt, self._answering.num_tokens)

    async def parts(self) -> AsyncIterator[Part]:
        """What is new, as it comes; before the last is handed on, all is written down."""
        first, left = True, len(self.choices)
        try:
            async for part in self._answering.parts(self._deadline):
                if first:
                    self._metrics.first_seconds.observe(time.monotonic() - self._begun)
                    first = False
                left -= part.finish is not None
                if not left:
                    await self._keep(self.head["id"], self.choices)
                yield part
        finally:
            self._answering.cancel()
            self._metrics.seconds.observe(time.monotonic() - self._begun)
            self._metrics.tokens.labels("prompt").inc(self._num_prompt)
            self._metrics.tokens.labels("completion").inc(self._answering.num_tokens)


async def _not_kept(name: str, choices: Sequence[Choice]) -> None:
    """There is no conversation to learn from."""


def _head(prefix: str, version: Version) -> dict[str, Any]:
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "created": int(time.time()),
        "model": version.name,
        "system_fingerprint": f"selftaught-{version.model_artifact[:12]}",
    }


def _rendered(messages: Sequence[Message], engine: Engine) -> list[int]:
    """A conversation's token ids.

    Raises:
        Refused: the model's chat template does not take it.
    """
    from jinja2 import TemplateError

    try:
        return render(tuple(messages), engine.model.tokenizer)
    except (TemplateError, ValueError, TypeError) as error:
        why = " ".join(str(error).split())[:200]
        raise Refused(400, f"messages: the model's chat template refuses them ({why})", param="messages") from error


def _check_text(asked: TextAsked) -> None:
    """Refuses what a text completion's fields do not say together.

    Raises:
        Refused: with which.
    """
    prompts, choices = len(asked.prompts), asked.n or 1
    if not 1 <= prompts * choices <= MAX_COMPLETIONS:
        told = (
            f"prompt: {prompts} prompts, {choices} completions of each; from 1 to {MAX_COMPLETIONS} are drawn at once"
        )
        raise Refused(400, told, param="prompt")
    if asked.echo and asked.stream:
        raise Refused(400, "echo: a stream does not repeat the prompt; leave out stream, or echo", param="echo")
    if asked.max_tokens == 0 and not asked.echo:
        raise Refused(400, "max_tokens: 0 draws nothing; ask for 1 or more, or for echo", param="max_tokens")


def _check_scores(asked: TextAsked, prompts: Sequence[Sequence[int]]) -> None:
    """Refuses more scores of prompts than fit into memory beside everyone else's.

    Raises:
        Refused: with how many they are.
    """
    if asked.logprobs is None:
        return
    scores = sum(map(len, prompts)) * (asked.n or 1) * (1 + asked.logprobs)
    if scores > MAX_PROMPT_SCORES:
        told = f"logprobs: {scores} scores of the prompts' tokens, of at most {MAX_PROMPT_SCORES} in one request"
        raise Refused(400, f"{told}; ask for fewer prompts at once, or with a smaller logprobs", param="logprobs")


def _tokens(prompt: str | Sequence[int], engine: Engine) -> list[int]:
    """A prompt's token ids.

    Raises:
        Refused: it has ids that are none of the model's.
    """
    tokenizer = engine.model.tokenizer
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    most = min(len(tokenizer), engine.model.plain_model.get_input_embeddings().num_embeddings)
    wrong = next((token for token in prompt if not 0 <= token < most), None)
    if wrong is not None:
        told = f"prompt: {str(wrong)[:20]} is no token of this model, whose ids go from 0 to {most - 1}"
        raise Refused(400, told, param="prompt")
    return list(prompt)


def _text(prompt: str | Sequence[int], engine: Engine) -> str:
    """A prompt as text."""
    if isinstance(prompt, str):
        return prompt
    return str(engine.model.tokenizer.decode(prompt, clean_up_tokenization_spaces=False))


# ------------------------------------------------------------------------------------- how it is told

Chunks = Callable[[dict[str, Any], Part, Any], dict[str, Any]]
"""(head, part, tokenizer) → what a stream says of the part."""


def _chat_chunks() -> Chunks:
    """Each choice's first chunk names the role."""
    begun: set[int] = set()

    def chunk(head: dict[str, Any], part: Part, tokenizer: Any) -> dict[str, Any]:
        first = part.index not in begun
        begun.add(part.index)
        return forms.chat_chunk(head, part, tokenizer, first)

    return chunk


def _text_chunks() -> Chunks:
    """Each chunk's scores go on where those of its choice ended."""
    ends: dict[int, int] = {}

    def chunk(head: dict[str, Any], part: Part, tokenizer: Any) -> dict[str, Any]:
        told = forms.text_chunk(head, part, tokenizer, ends.get(part.index, 0))
        scores = told["choices"][0]["logprobs"]
        if scores:
            ends[part.index] = scores["text_offset"][-1] + len(scores["tokens"][-1])
        return told

    return chunk


async def _told(job: _Job, asked: Drawing, request: Request, whole: Callable[..., Any], chunks: Chunks) -> Response:
    if asked.stream:
        options = asked.stream_options
        lines = _events(job, chunks, bool(options and options.include_usage))
        return StreamingResponse(lines, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
    if not await _finished(job, request):
        return Response(status_code=GONE)
    # in a thread: thousands of scores take their time, in which others are answered
    return await asyncio.to_thread(lambda: JSONResponse(whole(job.head, job.choices, job.usage, job.tokenizer)))


async def _finished(job: _Job, request: Request) -> bool:
    """Waits for the end; False if the client left before it, whose completions are then given up."""

    async def collect() -> None:
        async for _ in job.parts():
            pass

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    collecting, leaving = asyncio.create_task(collect()), asyncio.create_task(left())
    try:
        await asyncio.wait({collecting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if collecting.done():
            collecting.result()
        return collecting.done()
    finally:
        for task in (collecting, leaving):
            task.cancel()
        with suppress(asyncio.CancelledError, Refused):
            await collecting


async def _events(job: _Job, chunks: Chunks, usage_too: bool) -> AsyncIterator[str]:
    """The lines of a stream; what goes wrong on the way is its last line but one."""
    more = {"usage": None} if usage_too else {}
    try:
        async for part in job.parts():
            yield _line({**chunks(job.head, part, job.tokenizer), **more})
        if usage_too:
            last = chunks(job.head, Part(0, "", (), None), job.tokenizer)
            yield _line({**last, "choices": [], "usage": job.usage})
    except Refused as error:
        yield _line(error_body(error.message, error.kind, error.code))
    yield "data: [DONE]\n\n"


def _line(value: Any) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
