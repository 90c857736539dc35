"""What stands before the routes: sizes, slow clients, keys and their pace."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from selftaught.serve.answering import Refused
from selftaught.serve.keys import LOCAL, Key, Keys, Pace
from selftaught.serve.protocol import error_body
from selftaught.serve.settings import ServeSettings

STRANGERS_PER_MINUTE = 60  # wrong keys of one address
READ_ON = 8  # times the longest body is read, and dropped: a client that is hung up on does not hear why


class BodyLimits:
    """Reads a request's body before anyone else does: a client that sends too much, or too slowly, is told so.

    Args:
        app: what comes next.
        max_bytes: of a body.
        seconds: between two parts of it.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float) -> None:
        self._app, self._max_bytes, self._seconds = app, max_bytes, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = bytearray()
        size, more = 0, True
        while more and size <= READ_ON * self._max_bytes:
            try:
                message = await asyncio.wait_for(receive(), self._seconds)
            except asyncio.TimeoutError:  # another class before Python 3.11
                await _refuse(send, 408, f"the request took longer than {self._seconds:g} s to arrive")
                return
            if message["type"] == "http.disconnect":
                return
            part, more = message.get("body", b""), message.get("more_body", False)
            size += len(part)
            if size <= self._max_bytes:
                body += part
        if size > self._max_bytes:
            await _refuse(send, 413, f"the request has more than {self._max_bytes} bytes")
            return
        told = False

        async def replay() -> Message:
            nonlocal told
            if not told:
                told = True
                return {"type": "http.request", "body": bytes(body), "more_body": False}
            return await receive()

        await self._app(scope, replay, send)


async def _refuse(send: Send, status: int, message: str) -> None:
    body = json.dumps(error_body(message, "invalid_request_error")).encode("utf-8")
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode("ascii")),
        (b"connection", b"close"),  # what is still coming is not read
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Doorkeeper:
    """Knows who asks, and how often each may.

    Args:
        keys: of the workspace. While there is none, everyone on this machine may ask.
        settings: of the server.
    """

    def __init__(self, keys: Keys, settings: ServeSettings) -> None:
        self._keys = keys
        self._local = Key(LOCAL, store=settings.store, retention_days=settings.retention_days, operator=True)
        self._pace, self._strangers = Pace(), Pace()

    @property
    def is_open(self) -> bool:
        """Whether no key is needed."""
        return not self._keys.all()

    def asker(self, authorization: str | None, address: str, count: bool = True) -> Key:
        """Whose request it is.

        Args:
            authorization: the header.
            address: of the client.
            count: it is one of the key's requests a minute.

        Raises:
            Refused: the key is missing, unknown or revoked, or asks too often.
        """
        if self.is_open:
            return self._local
        scheme, _, secret = (authorization or "").partition(" ")
        key = self._keys.of(secret.strip()) if scheme.lower() == "bearer" else None
        if key is None:
            if wait := self._strangers.wait_seconds(address, STRANGERS_PER_MINUTE):
                raise Refused(429, "too many wrong keys", code="rate_limit_exceeded", retry_seconds=wait)
            raise Refused(
                401,
                "a valid API key is needed: Authorization: Bearer st-…  (selftaught keys add NAME makes one)",
                code="invalid_api_key",
            )
        wait = self._pace.wait_seconds(key.name, key.requests_per_minute) if count else 0.0
        if wait:
            raise Refused(
                429,
                f"{key.name} may ask {key.requests_per_minute} times a minute",
                "rate_limit_error",
                "rate_limit_exceeded",
                retry_seconds=wait,
            )
        return key


def check_operator(key: Key) -> None:
    """Lets only operators' keys pass.

    Raises:
        Refused: it is another.
    """
    if not key.operator:
        message = f"{key.name} is no operator's key (selftaught keys add NAME --operator makes one)"
        raise Refused(403, message, "permission_error", "not_an_operator")


Mark = Callable[[str, int], Any]


class Counted:
    """Counts what was answered.

    Args:
        app: what comes next.
        mark: told the route's path and the status.
    """

    def __init__(self, app: ASGIApp, mark: Mark) -> None:
        self._app, self._mark = app, mark

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 499  # the client left

        async def watching(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watching)
        finally:
            route = scope.get("route")
            self._mark(getattr(route, "path", "other"), status)
