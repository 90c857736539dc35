"""Serves the page on this machine: with the whole server beside it where that is there, else by itself."""

from __future__ import annotations

import socket
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware

from selftaught._version import __version__
from selftaught.continual.workspace import FOLDER, Workspace
from selftaught.errors import ConfigError
from selftaught.interactions.store import FILE
from selftaught.serve.page.routes import page_router

LOOPBACK = "127.0.0.1"
STOP_SECONDS = 5  # that answers under way may take when the page is closed


def has_server() -> bool:
    """Whether the server that answers prompts is there to be shown beside the page."""
    return find_spec("selftaught.serve.app") is not None


def page_app(workspace: Workspace) -> FastAPI:
    """The page alone: all but two versions side by side, which needs the server."""
    app = FastAPI(title="selftaught", version=__version__, docs_url=None, redoc_url=None)
    app.include_router(page_router(workspace, workspace.root / FOLDER / FILE))
    # a foreign page whose name was made to point here is refused
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[LOOPBACK, "localhost"])
    return app


def listen(port: int) -> socket.socket:
    """The socket to serve on; 0 takes a free port.

    Raises:
        ConfigError: the port is taken.
    """
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((LOOPBACK, port))
    except OSError as error:
        sock.close()
        raise ConfigError(f"--port {port}: {error.strerror}; leave it out, and a free one is taken") from error
    sock.listen(128)
    return sock


def server(workspace: Workspace) -> uvicorn.Server:
    """What serves the page; `run(sockets=[…])` does until it is interrupted."""
    app: Any = page_app(workspace)
    if has_server():
        settings = import_module("selftaught.serve.settings").ServeSettings()
        app = import_module("selftaught.serve.app").create_app(workspace, settings)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=STOP_SECONDS
    )
    return uvicorn.Server(config)
