"""How a server is run."""

from __future__ import annotations

from dataclasses import dataclass, field

from selftaught.serve.engine import Limits

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class ServeSettings:
    """How a server is run.

    Attributes:
        host: address that it listens on; others than this machine's own need keys.
        port: 0 takes a free one.
        store: keep the conversations of those who need no key.
        retention_days: for how long; None is until they are purged.
        origins: web pages of other addresses that may call it.
        max_tokens: longest completion of a request that names no length.
        max_body_bytes: longest body of a request.
        body_seconds: that a client may take between two parts of its request.
        request_seconds: that an answer may take.
        max_loaded: versions in memory.
        preload: load HEAD before the first request; else as soon as it is asked.
        limits: of each version's engine.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    store: bool = False
    retention_days: float | None = None
    origins: tuple[str, ...] = ()
    max_tokens: int = 1024
    max_body_bytes: int = 1 << 20
    body_seconds: float = 10.0
    request_seconds: float = 300.0
    max_loaded: int = 2
    preload: bool = True
    limits: Limits = field(default_factory=Limits)

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in LOOPBACK
