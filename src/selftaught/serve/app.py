"""The server's routes, as OpenAI's interface has them, and feedback and the page beside.

A request passes: size and pace → key → model (a version, HEAD by default) → prompt → engine → text. What a key allows
to be kept is on the disk before the answer is told.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from selftaught._version import __version__
from selftaught.continual.workspace import Workspace
from selftaught.errors import ArtifactError, DataError, ModelError
from selftaught.serve.answering import Refused
from selftaught.serve.completing import Completing
from selftaught.serve.engine import Busy
from selftaught.serve.guards import BodyLimits, Counted, Doorkeeper, check_operator
from selftaught.serve.keys import Key, Keys
from selftaught.serve.metrics import Metrics
from selftaught.serve.page import page_router
from selftaught.serve.protocol import ChatAsked, FeedbackAsked, TextAsked, error_body
from selftaught.serve.records import Records
from selftaught.serve.settings import LOOPBACK, ServeSettings
from selftaught.serve.versions import HEAD, Versions

Answers = dict[int | str, dict[str, Any]]
"""What a route may answer, by status."""
FAILURES: Answers = {
    code: {"description": text}
    for code, text in (
        (400, "The request is wrong."), (401, "No valid key."), (403, "This key may not do that."),
        (404, "No such thing."), (408, "The request came too slowly."), (413, "The request is too long."),
        (429, "Too many requests."), (503, "The model cannot be used."), (504, "It took too long."),
    )
}  # fmt: skip


def create_app(root: Path, settings: ServeSettings) -> FastAPI:
    """The server of a workspace.

    Args:
        root: the workspace's folder.
        settings: how it is run.
    """
    keys = Keys.of_workspace(root)
    doorkeeper = Doorkeeper(keys, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        workspace = Workspace.open(root)  # its ledger is read in this thread alone
        versions = Versions(workspace, settings.limits, settings.max_loaded)
        if settings.preload:
            await versions.engine(versions.head)
        records = Records(workspace)
        metrics = Metrics(lambda: versions.loaded, lambda: versions.head.name)
        app.state.versions, app.state.records, app.state.metrics = versions, records, metrics
        app.state.completing = Completing(versions, records, metrics, settings)
        tasks = [asyncio.create_task(versions.watch()), asyncio.create_task(records.expire())]
        yield
        for task in tasks:
            task.cancel()
        await versions.close()
        records.close()

    app = FastAPI(title="selftaught", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)

    def asker(request: Request) -> Key:
        address = request.client.host if request.client else ""
        return doorkeeper.asker(request.headers.get("authorization"), address, count=request.method == "POST")

    def operator(request: Request) -> None:
        check_operator(asker(request))

    _add_errors(app)
    _add_routes(app, asker)
    app.include_router(page_router(root, operator), responses=FAILURES)
    app.add_middleware(BodyLimits, max_bytes=settings.max_body_bytes, seconds=settings.body_seconds)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type"],
        )
    if settings.is_local:  # a web page whose name was made to point here is refused
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, "[::1]"])
    app.add_middleware(Counted, mark=lambda path, status: _count(app, path, status))
    return app


def _count(app: FastAPI, path: str, status: int) -> None:
    with suppress(AttributeError):  # it has not begun yet
        app.state.metrics.requests.labels(path, status).inc()


def _add_routes(app: FastAPI, asker: Any) -> None:
    who = Depends(asker)
    either: Answers = {200: {"content": {"application/json": {}, "text/event-stream": {}}}}

    @app.post("/v1/chat/completions", responses=FAILURES | either)
    async def chat_completions(asked: ChatAsked, request: Request, key: Key = who) -> Response:
        return await app.state.completing.chat(asked, request, key)  # type: ignore[no-any-return]

    @app.post("/v1/completions", responses=FAILURES | either)
    async def completions(asked: TextAsked, request: Request, key: Key = who) -> Response:
        return await app.state.completing.text(asked, request)  # type: ignore[no-any-return]

    @app.post("/v1/feedback", status_code=201, responses=FAILURES)
    async def feedback(asked: FeedbackAsked, key: Key = who) -> dict[str, Any]:
        noted = await app.state.records.feedback(key, asked.completion_id, asked.kind, asked.text)
        if noted is None:
            raise Refused(429, "this key has given all the feedback that it may today", code="rate_limit_exceeded")
        app.state.metrics.feedback.labels(asked.kind).inc()
        return {"id": noted.id, "object": "feedback", "completion_id": noted.interaction, "kind": noted.kind}

    @app.get("/v1/models", responses=FAILURES)
    async def models(key: Key = who) -> dict[str, Any]:
        versions: Versions = app.state.versions
        listed = [_model(HEAD, versions.head), *(_model(one.name, one) for one in reversed(versions.served()))]
        return {"object": "list", "data": listed}

    @app.get("/v1/models/{name}", responses=FAILURES)
    async def model(name: str, key: Key = who) -> dict[str, Any]:
        return _model(name, app.state.versions.named(name))

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok", "head": app.state.versions.head.name}

    @app.get("/metrics", responses=FAILURES, response_class=PlainTextResponse)
    async def metrics(key: Key = who) -> Response:
        return Response(app.state.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _model(name: str, version: Any) -> dict[str, Any]:
    """A version as OpenAI's interface shows a model."""
    return {
        "id": name,
        "object": "model",
        "created": _seconds(version.created),
        "owned_by": "selftaught",
        "version": version.name,
        "skill": version.skill,
    }


def _seconds(created: str) -> int:
    import datetime

    return int(datetime.datetime.fromisoformat(created.replace("Z", "+00:00")).timestamp())


def _add_errors(app: FastAPI) -> None:
    """Everything that a client does wrong is told in OpenAI's form, and never as a fault of the server."""

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> JSONResponse:
        headers = {} if error.retry_seconds is None else {"Retry-After": str(math.ceil(error.retry_seconds))}
        if error.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        body = error_body(error.message, error.kind, error.code, error.param)
        return JSONResponse(body, error.status, headers)

    @app.exception_handler(Busy)
    async def busy(_: Request, error: Busy) -> JSONResponse:
        return JSONResponse(error_body(str(error), "rate_limit_error", "queue_full"), 429, {"Retry-After": "1"})

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return JSONResponse(error_body("the body is not JSON", "invalid_request_error"), 400)
        place = ".".join(str(part) for part in first["loc"] if part != "body")
        message = f"{place}: {first['msg']}" if place else str(first["msg"])
        return JSONResponse(error_body(message, "invalid_request_error", param=place or None), 400)

    @app.exception_handler(DataError)
    async def bad_data(_: Request, error: DataError) -> JSONResponse:
        return JSONResponse(error_body(str(error), "invalid_request_error"), 400)

    @app.exception_handler(ModelError)
    @app.exception_handler(ArtifactError)
    async def unusable(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse(error_body(str(error), "server_error"), 503)

    @app.exception_handler(HTTPException)
    async def no_route(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse(error_body(str(error.detail), "invalid_request_error"), error.status_code, error.headers)
