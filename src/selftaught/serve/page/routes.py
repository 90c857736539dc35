"""The page's routes: itself, what it shows, and the one thing that it changes, which is the state of feedback."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi import Path as InPath
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from selftaught._version import __version__
from selftaught.continual.workspace import FOLDER, Workspace
from selftaught.errors import ConfigError, DataError, SelftaughtError
from selftaught.interactions import Interactions
from selftaught.interactions.store import FILE
from selftaught.serve.page import views
from selftaught.serve.page.document import document


class StateAsked(BaseModel):
    """What somebody decided about feedback; "pending" takes a decision back."""

    state: Literal["approved", "rejected", "pending"]


def page_router(root: Path, allowed: Callable[..., Any] = lambda: None) -> APIRouter:
    """The page of a workspace.

    Each request opens the workspace for itself: requests are answered in several threads, a connection belongs to one.

    Args:
        root: the workspace's folder.
        allowed: a dependency of FastAPI's that refuses whoever may not see or change anything, for example who has
            no key where keys are needed. The page itself tells nothing and is everybody's.
    """
    router, interactions_path = APIRouter(tags=["page"]), root / FOLDER / FILE
    guarded = [Depends(allowed)]

    @router.get("/", response_class=HTMLResponse, include_in_schema=False)
    def page() -> HTMLResponse:
        text, headers = document()
        return HTMLResponse(text, headers={**headers, "Cache-Control": "no-cache"})

    @router.get("/page/state", dependencies=guarded, responses={304: {"description": "It is as it was."}})
    def state(request: Request) -> Response:
        """All that the page shows; with If-None-Match, only if it has changed."""
        with _opened(root) as opened:
            seen = views.fingerprint(opened, interactions_path)
            tag = f'"{hashlib.sha256(f"{__version__} {seen}".encode()).hexdigest()[:32]}"'
            headers = {"ETag": tag, "Cache-Control": "no-cache"}
            if tag in (part.strip() for part in request.headers.get("if-none-match", "").split(",")):
                return Response(status_code=304, headers=headers)
            with _store(interactions_path) as store:
                return _json(views.state(opened, store), headers)

    @router.get("/page/flips/{version}", dependencies=guarded, responses={404: {"description": "No such version."}})
    def flips(version: str) -> Response:
        """What a version answers otherwise than the one it was taught from."""
        with _opened(root) as opened:
            return _json(views.flips(opened, version), {"Cache-Control": "no-cache"})

    @router.post(
        "/page/feedback/{number}",
        dependencies=[Depends(same_origin), *guarded],
        responses={
            403: {"description": "Asked by another page."},
            404: {"description": "No such feedback."},
            409: {"description": "It was learned already."},
        },
    )
    def decide(number: Annotated[int, InPath(ge=1, lt=1 << 63)], asked: StateAsked) -> dict[str, Any]:
        """Approves or rejects what a user said; a lesson learns from what was approved."""
        with _opened(root), _store(interactions_path) as store:
            if store is None:
                raise DataError(f"feedback {number}: nothing was kept here yet")
            if any(said.id == number for said, _ in store.feedback("learned")):
                raise HTTPException(409, f"feedback {number}: a lesson has learned from it already")
            store.set_state([number], asked.state)
        return {"id": number, "state": asked.state}

    return router


def same_origin(request: Request) -> None:
    """Lets only the page itself change anything: other pages' requests name another origin, or none.

    Raises:
        HTTPException: 403.
    """
    origin = urlsplit(request.headers.get("origin", ""))
    if not origin.netloc or origin.netloc != request.headers.get("host"):
        raise HTTPException(403, "only this server's own page may do that")


@contextmanager
def _opened(root: Path) -> Iterator[Workspace]:
    """A workspace of this request's own; what is wrong with it is told in one line."""
    try:
        opened = Workspace.open(root)
        with closing(opened.ledger):
            yield opened
    except (ConfigError, DataError) as error:
        raise HTTPException(404, str(error)) from error
    except SelftaughtError as error:
        raise HTTPException(503, str(error)) from error


@contextmanager
def _store(path: Path) -> Iterator[Interactions | None]:
    """The store of conversations, if anything was ever kept."""
    if not path.is_file():
        yield None
        return
    with closing(Interactions(path)) as store:
        yield store


def _json(value: Any, headers: dict[str, str]) -> Response:
    """Not a number becomes null: browsers know none."""
    text = json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":"))
    return Response(text, media_type="application/json", headers=headers)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and value - value != 0 else value
