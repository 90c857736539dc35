"""What the server writes down of conversations and feedback, in a thread of its own: the disk is slow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from selftaught.interactions import Feedback, Interaction, Interactions
from selftaught.interactions.store import Kind, days_from_now
from selftaught.ledger.store import now
from selftaught.serve.keys import Key
from selftaught.types import Message

T = TypeVar("T")
EXPIRE_SECONDS = 600.0  # between looks for what is past its time
DAY = 1.0


class Records:
    """The workspace's interactions, as the server uses them: what a call has returned from is on the disk.

    Args:
        path: of the store.
        redact: applied to every text before it is kept.
    """

    def __init__(self, path: Path, redact: Callable[[str], str] = lambda text: text) -> None:
        self._path, self._redact = path, redact
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="interactions")  # SQLite's connections stay in theirs
        self._store: Interactions | None = None

    async def keep(
        self, key: Key, name: str, version: str, messages: Sequence[Message], completions: Sequence[str]
    ) -> None:
        """Keeps a request's completions, of a key that is willing; the first is called as the request is."""
        if not key.store:
            return
        expires = None if key.retention_days is None else days_from_now(key.retention_days)
        kept = [
            Interaction(f"{name}-{n}" if n else name, now(), key.name, version, tuple(messages), completion, expires)
            for n, completion in enumerate(completions)
        ]
        await self._run(lambda store: store.keep_all(kept))

    async def follow_up(self, key: Key, messages: Sequence[Message]) -> None:
        """Notes what a user says next, where the conversation goes on from an answer that was kept."""
        if key.store:
            await self._run(lambda store: store.follow_up(key.name, messages))

    async def feedback(self, key: Key, name: str, kind: Kind, text: str) -> Feedback | None:
        """Notes feedback; None where the key has given all that it may today.

        Raises:
            DataError: the answer is not kept, or the text is missing.
        """

        def note(store: Interactions) -> Feedback | None:
            if store.feedback_since(key.name, days_from_now(-DAY)) >= key.feedback_per_day:
                return None
            return store.add_feedback(name, key.name, kind, text)

        return await self._run(note)

    async def expire(self) -> None:
        """Deletes what is past its time, now and then, until it is cancelled."""
        while True:
            if self._path.is_file():
                await self._run(lambda store: store.expire())
            await asyncio.sleep(EXPIRE_SECONDS)

    def close(self) -> None:
        """Ends, after all that was asked for is written."""
        if self._store is not None:
            self._thread.submit(self._store.close).result()
        self._thread.shutdown()

    async def _run(self, work: Callable[[Interactions], T]) -> T:
        def run() -> Any:
            if self._store is None:
                self._store = Interactions(self._path, self._redact)
            return work(self._store)

        return await asyncio.get_running_loop().run_in_executor(self._thread, run)
