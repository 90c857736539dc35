"""Runs the server in a process: uvicorn, with patience for no one."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from selftaught.errors import ConfigError
from selftaught.serve.app import create_app
from selftaught.serve.keys import Keys
from selftaught.serve.settings import ServeSettings

HEADER_SECONDS = 10.0  # that a client may take to say what it wants
STOP_SECONDS = 30  # that answers under way may take when the server is told to stop
CONNECTIONS = 1000  # beyond them a client is told 503


class TimedProtocol(H11Protocol):
    """HTTP/1.1 that hangs up on a client which does not finish its request's head in time."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._hang_up = self.loop.call_later(HEADER_SECONDS, self._too_slow)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._hang_up.cancel()  # its head is whole; the body has a limit of its own

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._hang_up.cancel()
        self._hang_up = self.loop.call_later(HEADER_SECONDS, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._hang_up.cancel()
        super().connection_lost(exc)

    def _too_slow(self) -> None:
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()


def listen(root: Path, settings: ServeSettings) -> socket.socket:
    """The socket to serve on.

    Raises:
        ConfigError: it is taken, there is no such address, or others could reach it and there is no key.
    """
    if not settings.is_local and not any(key.revoked is None for key in Keys.of_workspace(root).all()):
        raise ConfigError(
            f"--host {settings.host}: others could reach it, and no key is needed; make one first: "
            "selftaught keys add NAME"
        )
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((settings.host, settings.port))
        sock.listen(1024)
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"--host {settings.host} --port {settings.port}: cannot be listened on ({error.strerror or error}); "
            "choose another --port (0 takes a free one)"
        ) from error
    return sock


def serve(root: Path, settings: ServeSettings, sock: socket.socket) -> None:
    """Serves a workspace until it is told to stop; answers under way are finished.

    Args:
        root: the workspace's folder.
        settings: how.
        sock: from `listen`.
    """
    logging.getLogger("selftaught").setLevel(logging.INFO)
    options: dict[str, Any] = {
        "http": TimedProtocol,
        "ws": "none",
        "timeout_keep_alive": int(HEADER_SECONDS),
        "timeout_graceful_shutdown": STOP_SECONDS,
        "limit_concurrency": CONNECTIONS,
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        "h11_max_incomplete_event_size": 64 << 10,
    }
    uvicorn.Server(uvicorn.Config(create_app(root, settings), **options)).run(sockets=[sock])
