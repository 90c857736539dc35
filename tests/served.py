"""A served workspace: versions of it, and what is asked of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.middleware.trustedhost import TrustedHostMiddleware

from selftaught.continual.workspace import Workspace
from selftaught.ledger.records import Version
from selftaught.models.load import load_model
from selftaught.serve import versions
from selftaught.serve.page import page_router
from selftaught.serve.settings import LOOPBACK


@contextmanager
def in_float32() -> Iterator[None]:
    """Servers load models in float32, also where the processor has bfloat16: comparable with transformers' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(versions, "load_model", partial(load_model, dtype="float32"))
        yield


def page_app(root: Path) -> FastAPI:
    """The page of a workspace alone, without the server that answers."""
    app = FastAPI()
    app.include_router(page_router(root))
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK))
    return app


def add_version(root: Path, model: Path, status: str = "promoted", parent: int = 0) -> Version:
    """Records a model as a version that was taught from another, as a lesson would."""
    workspace = Workspace.open(root)
    digest = workspace.artifacts.put_folder(model)
    version = Version(0, parent, None, "2026-01-02T00:00:00Z", "sdft", {}, 0, None, "0", digest, None, 0.1, {})
    verdict = {"outcome": status, "sentence": "so it is", "checks": [], "policy": {}}
    return workspace.ledger.add_version(version, [], verdict, status, "so it is")


def chat(client: TestClient, question: str = "Hi", **more: Any) -> Any:
    """A chat completion's answer."""
    body = {"messages": [{"role": "user", "content": question}], "max_tokens": 8, "temperature": 0, **more}
    return client.post("/v1/chat/completions", json=body)


def events(text: str) -> list[Any]:
    """What a stream said, without its end."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]
