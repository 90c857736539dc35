"""What the server writes down of conversations and feedback, in a thread of its own: the disk is slow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import TypeVar

from selftaught.continual.workspace import Workspace
from selftaught.errors import ArtifactError
from selftaught.interactions import Feedback, Interaction, Interactions
from selftaught.interactions.store import utc
from selftaught.serve.keys import Key
from selftaught.types import Message

T = TypeVar("T")
EXPIRE_SECONDS = 600.0  # between looks for what is past its time


class Records:
    """The workspace's interactions, as the server uses them: what a call has returned from is on the disk.

    Args:
        workspace: whose they are.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._store = workspace.interactions()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="interactions")

    async def keep(
        self, key: Key, name: str, version: str, messages: Sequence[Message], completions: Sequence[str]
    ) -> None:
        """Keeps a request's completions, of a key that is willing; the first is called as the request is."""
        if not key.store:
            return
        expires = None if key.retention_days is None else utc(timedelta(days=key.retention_days))
        kept = [
            Interaction(f"{name}-{n}" if n else name, utc(), key.name, version, tuple(messages), completion, expires)
            for n, completion in enumerate(completions)
        ]
        await self._run(lambda store: store.keep_all(kept))

    async def follow_up(self, key: Key, messages: Sequence[Message]) -> None:
        """Notes what a user says next, where the conversation goes on from an answer that was kept."""
        if key.store:
            await self._run(lambda store: store.follow_up(key.name, messages))

    async def feedback(self, key: Key, name: str, kind: str, text: str) -> Feedback | None:
        """Notes feedback; None where the key has given all that it may today.

        Raises:
            DataError: the answer is not kept, or the text is missing.
        """

        def note(store: Interactions) -> Feedback | None:
            if store.num_feedback(key.name, utc(-timedelta(days=1))) >= key.feedback_per_day:
                return None
            return store.add_feedback(name, key.name, kind, text)

        return await self._run(note)

    async def expire(self) -> None:
        """Deletes what is past its time, now and then, until it is cancelled."""
        while True:
            with suppress(ArtifactError):  # another process is reading; the next look will do
                await self._run(lambda store: store.expire())
            await asyncio.sleep(EXPIRE_SECONDS)

    def close(self) -> None:
        """Ends, after all that was asked for is written."""
        self._thread.shutdown()
        self._store.close()

    async def _run(self, work: Callable[[Interactions], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, self._store)
