"""A real server process of a workspace."""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path

import openai
from command import Running, start


class Server:
    """A server at work.

    Args:
        root: the workspace's folder.
        options: more words of its command line.
    """

    def __init__(self, root: Path, *options: object) -> None:
        self.root = root
        self.running: Running = start("serve", "--port", 0, "-w", root, *options)
        self.running.wait_until(lambda: "/v1" in self.running.said)
        found = re.search(r"http://127\.0\.0\.1:(\d+)/v1", self.running.said)
        assert found
        self.port = int(found[1])

    @property
    def url(self) -> str:
        """Of its interface."""
        return f"http://127.0.0.1:{self.port}/v1"

    def client(self, key: str = "none", **options: object) -> openai.OpenAI:
        """OpenAI's own client of it."""
        return openai.OpenAI(base_url=self.url, api_key=key, max_retries=0, **options)  # type: ignore[arg-type]

    def connect(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def end(self) -> None:
        """Ends it as Ctrl-C does."""
        self.running.signal(signal.SIGINT)
        assert self.running.wait(30).code in (0, 130)
