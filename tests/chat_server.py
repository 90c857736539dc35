"""An OpenAI-compatible address on this machine, whose model says what a script tells it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class ChatServer(ThreadingHTTPServer):
    """Speaks /v1/chat/completions.

    Attributes:
        say: gives the reply to a request's body; one that raises is an error of the server's.
        asked: the last turn of each request that was answered.
        keys: the Authorization header of each.
    """

    def __init__(self, say: Callable[[dict[str, Any]], str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.say = say
        self.asked: list[str] = []
        self.keys: list[str | None] = []

    @property
    def address(self) -> str:
        """Its base address and a model's name, as --generator and --judge take them."""
        return f"http://127.0.0.1:{self.server_port}/v1#big"


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            text = self.server.say(body)
        except Exception as error:
            self._send(500, {"error": str(error)})
            return
        self.server.asked.append(body["messages"][-1]["content"])
        self.server.keys.append(self.headers["Authorization"])
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        self._send(200, {"id": "1", "model": body["model"], "created": 0, "choices": [choice]})

    def _send(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@contextmanager
def chat_server(say: Callable[[dict[str, Any]], str]) -> Iterator[ChatServer]:
    """A server at work."""
    with ChatServer(say) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
