"""From a request to its answer, at once or as a stream."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from selftaught.errors import ConfigError
from selftaught.ledger.records import Version
from selftaught.prompts import render
from selftaught.serve import forms
from selftaught.serve.answering import Answering, Part, Refused, Wanted
from selftaught.serve.engine import Engine
from selftaught.serve.keys import Key
from selftaught.serve.metrics import Metrics
from selftaught.serve.protocol import ChatAsked, Drawing, TextAsked, error_body
from selftaught.serve.records import Records
from selftaught.serve.settings import ServeSettings
from selftaught.serve.versions import Versions
from selftaught.types import Message

GONE = 499  # status in the records of a request whose client left


@dataclass(frozen=True)
class _Kind:
    """How one of the two interfaces says things."""

    whole: Callable[..., Any]
    chunk: Callable[[dict[str, Any], Part, Any], dict[str, Any]]


@dataclass
class _Told:
    """How much of each choice a stream has told."""

    characters: dict[int, int] = field(default_factory=dict)

    def chat(self, head: dict[str, Any], part: Part, tokenizer: Any) -> dict[str, Any]:
        first = part.index not in self.characters
        self.characters[part.index] = 1
        return forms.chat_chunk(head, part, tokenizer, first)

    def text(self, head: dict[str, Any], part: Part, tokenizer: Any) -> dict[str, Any]:
        begin = self.characters.get(part.index, 0)
        self.characters[part.index] = begin + len(part.text)
        return forms.text_chunk(head, part, tokenizer, begin)


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
        await self._records.follow_up(key, messages)
        scores = (asked.top_logprobs or 0) if asked.logprobs else None
        wanted = self._wanted(asked, asked.max_completion_tokens or asked.max_tokens, scores)

        def prompts(engine: Engine) -> list[list[int]]:
            return [_rendered(messages, engine)]

        async def keep(name: str, version: Version, answering: Answering) -> None:
            texts = [choice.text for choice in answering.choices]
            await self._records.keep(key, name, version.name, messages, texts)

        kind = _Kind(forms.chat_answer, _Told().chat)
        return await self._answered(asked, request, wanted, prompts, keep, "chatcmpl", kind)

    async def text(self, asked: TextAsked, request: Request, key: Key) -> Response:
        """POST /v1/completions: the prompt is gone on from as it is, without the model's chat template.

        Raises:
            Refused: with what the client did wrong.
        """
        texts = [asked.prompt] if isinstance(asked.prompt, str) else asked.prompt
        wanted = self._wanted(asked, asked.max_tokens, asked.logprobs)

        def prompts(engine: Engine) -> list[list[int]]:
            return [list(engine.model.tokenizer(text)["input_ids"]) for text in texts]

        async def keep(name: str, version: Version, answering: Answering) -> None:
            pass  # there is no conversation to learn from

        kind = _Kind(forms.text_answer, _Told().text)
        return await self._answered(asked, request, wanted, prompts, keep, "cmpl", kind)

    def _wanted(self, asked: Drawing, max_tokens: int | None, scores: int | None) -> Wanted:
        return Wanted(
            max_tokens or self._settings.max_tokens,
            1.0 if asked.temperature is None else asked.temperature,
            1.0 if asked.top_p is None else asked.top_p,
            asked.n or 1,
            asked.seed,
            asked.stops,
            scores,
        )

    async def _answered(
        self,
        asked: Drawing,
        request: Request,
        wanted: Wanted,
        prompts: Callable[[Engine], list[list[int]]],
        keep: Callable[[str, Version, Answering], Awaitable[None]],
        prefix: str,
        kind: _Kind,
    ) -> Response:
        try:
            version = self._versions.named(asked.model)
        except ConfigError as error:
            raise Refused(404, str(error), code="model_not_found", param="model") from error
        begun = time.monotonic()
        using = self._versions.in_use(version)
        using.__enter__()  # until the last part is told, which may be after this returns
        try:
            engine = await self._versions.engine(version)
            tokens = await asyncio.to_thread(prompts, engine)
            wanted = _fitted(wanted, asked, tokens, engine)
            answering = Answering(engine, tokens, wanted)
        except BaseException:
            using.__exit__(None, None, None)
            raise
        head = {"id": f"{prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": version.name}
        head["system_fingerprint"] = f"selftaught-{version.model_artifact[:12]}"
        num_prompt = sum(map(len, tokens))

        async def parts() -> AsyncIterator[Part]:
            """As they come; at the end all is counted and kept, before the last one is handed on."""
            first, left = True, len(answering.choices)
            try:
                async for part in answering.parts(begun + self._settings.request_seconds):
                    if first:
                        self._metrics.first_seconds.observe(time.monotonic() - begun)
                        first = False
                    left -= part.finish is not None
                    if not left:
                        await keep(str(head["id"]), version, answering)
                    yield part
            finally:
                answering.cancel()
                using.__exit__(None, None, None)
                self._metrics.seconds.observe(time.monotonic() - begun)
                self._metrics.tokens.labels("prompt").inc(num_prompt)
                self._metrics.tokens.labels("completion").inc(answering.num_tokens)

        tokenizer = engine.model.tokenizer
        if asked.stream:
            options = asked.stream_options
            usage_too = bool(options and options.include_usage)
            lines = _events(head, parts(), answering, num_prompt, kind, tokenizer, usage_too)
            return StreamingResponse(lines, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        if not await _finished(parts(), request):
            return Response(status_code=GONE)
        used = forms.usage(num_prompt, answering.num_tokens)
        return JSONResponse(kind.whole(head, answering.choices, used, tokenizer))


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


def _fitted(wanted: Wanted, asked: Drawing, prompts: Sequence[Sequence[int]], engine: Engine) -> Wanted:
    """Where the request names no length, what the longest prompt leaves."""
    from dataclasses import replace

    named = getattr(asked, "max_completion_tokens", None) or getattr(asked, "max_tokens", None)
    if named:
        return wanted
    return replace(wanted, max_tokens=max(1, min(wanted.max_tokens, engine.max_tokens - max(map(len, prompts)))))


async def _finished(parts: AsyncIterator[Part], request: Request) -> bool:
    """Waits for the end; False if the client left before it, whose completions are then given up."""

    async def collect() -> None:
        async for _ in parts:
            pass

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    collecting, leaving = asyncio.create_task(collect()), asyncio.create_task(left())
    try:
        await asyncio.wait({collecting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if collecting.done():
            collecting.result()
            return True
        return False
    finally:
        for task in (collecting, leaving):
            task.cancel()
        with suppress(asyncio.CancelledError, Refused):
            await collecting


async def _events(
    head: dict[str, Any],
    parts: AsyncIterator[Part],
    answering: Answering,
    num_prompt: int,
    kind: _Kind,
    tokenizer: Any,
    usage_too: bool,
) -> AsyncIterator[str]:
    """The lines of a stream; what goes wrong on the way is its last line but one."""
    more = {"usage": None} if usage_too else {}
    try:
        async for part in parts:
            yield _line({**kind.chunk(head, part, tokenizer), **more})
        if usage_too:
            last = kind.chunk(head, Part(0, "", (), None), tokenizer)
            yield _line({**last, "choices": [], "usage": forms.usage(num_prompt, answering.num_tokens)})
    except Refused as error:
        yield _line(error_body(error.message, error.kind, error.code))
    yield "data: [DONE]\n\n"


def _line(value: Any) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
