"""Which versions are loaded: HEAD, as it moves, and a few others that are asked by name."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict

from selftaught.continual.workspace import Workspace
from selftaught.errors import ArtifactError, SelftaughtError
from selftaught.ledger.records import Version
from selftaught.models.load import load_model
from selftaught.serve.answering import Refused
from selftaught.serve.engine import Engine, Limits

logger = logging.getLogger(__name__)

HEAD = "HEAD"
WATCH_SECONDS = 1.0  # between looks at the ledger


class Versions:
    """The engines of a workspace's versions.

    A new HEAD is loaded beside the old one and takes over when it is ready; whoever is being answered is answered
    to the end by the version that began.

    Args:
        workspace: whose versions.
        limits: of each engine.
        max_loaded: engines kept; the one that was not asked for the longest time goes, HEAD never.
    """

    def __init__(self, workspace: Workspace, limits: Limits, max_loaded: int = 2) -> None:
        self.workspace, self.limits, self.max_loaded = workspace, limits, max(1, max_loaded)
        self.head: Version = workspace.ledger.head()
        self._engines: OrderedDict[int, Engine] = OrderedDict()  # by version, the one asked last at the end
        self._leaving: set[asyncio.Task[None]] = set()
        self._loading = asyncio.Lock()

    @property
    def loaded(self) -> dict[str, Engine]:
        """Engines by their version's name."""
        return {f"v{number}": engine for number, engine in self._engines.items()}

    def served(self) -> list[Version]:
        """The versions that may be asked: HEAD's line and all whose weights are there, the oldest first."""
        ledger = self.workspace.ledger
        return [
            version
            for version in ledger.versions()
            if ledger.status(version) in ("base", "promoted", "restored") and not self.workspace.is_collected(version)
        ]

    def named(self, name: str) -> Version:
        """A version by the name that a request gives.

        Raises:
            Refused: there is none that is served by that name.
        """
        if name in ("", HEAD, "head"):
            return self.head
        found = next((version for version in self.served() if version.name == name), None)
        if found is None:
            raise Refused(
                404, f"{name}: no such model here; GET /v1/models lists them", code="model_not_found", param="model"
            )
        return found

    async def engine(self, version: Version) -> Engine:
        """The engine of a version, loaded if it is not.

        Raises:
            ArtifactError, ModelError: its weights cannot be used.
        """
        if version.number not in self._engines:
            async with self._loading:
                if version.number not in self._engines:
                    if self.workspace.is_collected(version):
                        raise ArtifactError(f"{version.name}: its weights were removed by selftaught gc")
                    self._engines[version.number] = await asyncio.to_thread(self._load, version.model_artifact)
                    self._make_room(version.number)
        self._engines.move_to_end(version.number)
        return self._engines[version.number]

    async def watch(self) -> None:
        """Follows HEAD until it is cancelled; a new one that cannot be loaded is logged, and the old one stays."""
        failed: int | None = None
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                found = self.workspace.ledger.head()
            except SelftaughtError as error:  # it may be busy, or on a disk that is away for a moment
                logger.warning("the ledger cannot be looked at: %s", error)
                continue
            if found.number in (self.head.number, failed):
                continue
            try:
                await self.engine(found)
                logger.info("HEAD is %s", found.name)
                self.head, failed = found, None
            except SelftaughtError as error:
                failed = found.number
                logger.error("the new HEAD cannot be served: %s", error)

    async def close(self) -> None:
        """Answers what is under way, and ends."""
        await asyncio.gather(*self._leaving, *(asyncio.to_thread(engine.close) for engine in self._engines.values()))

    def _load(self, digest: str) -> Engine:
        """In another thread, where the ledger must not be used."""
        return Engine(load_model(self.workspace.artifacts.folder(digest)), self.limits)

    def _make_room(self, newest: int) -> None:
        """Lets go of what was not asked for the longest time, never of HEAD; it answers first whom it has."""
        for number in list(self._engines):
            if len(self._engines) > self.max_loaded and number not in (newest, self.head.number):
                task = asyncio.create_task(asyncio.to_thread(self._engines.pop(number).close))
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)
