"""How processes that torchrun has started find each other, and what they say outside of their exchanges.

They share a store of words: torchrun's, or one in the first process. Who waits for work looks there; who fails leaves
word of it.
"""

from __future__ import annotations

import os
import pickle
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar, cast

from selftaught.errors import GO_ON, ConfigError, SelftaughtError, TrainingError

T = TypeVar("T")
TIMEOUT_SECONDS = 1800  # longer than the first process writes or scores by itself
LOOK_SECONDS = 0.2  # between looks at whether there is work
MEET_SECONDS = 0.05  # between looks at who has come
WORD_SECONDS = 10  # for the last word of why all ends: who keeps it may be what is gone
LOST = (
    "a training process ended or hung, killed perhaps for lack of memory, or its machine is gone; what is done is "
    f"kept: {GO_ON}, with as many processes as you like"
)


class Lost(TrainingError):
    """Others are gone, or this process was told to go."""


def number(variable: str, default: int) -> int:
    """An environment variable."""
    return int(os.environ.get(variable) or default)


class Meeting:
    """This process's words with the others, from the first need of them to the end.

    torchrun keeps one store for all that it starts after failures, and what earlier processes wrote is still there. So
    each of the others says hello by a name that nobody had before, and the first answers with one for all that is said.
    """

    def __init__(self) -> None:
        from torch.distributed.rendezvous import rendezvous

        self.timeout = timedelta(seconds=number("SELFTAUGHT_TIMEOUT_SECONDS", TIMEOUT_SECONDS))
        with _refused_in_words():
            self._shared, self.rank, self.size = next(rendezvous("env://", timeout=self.timeout))
        self.store: Any = None  # what these processes say to each other
        self.failed = False
        self._calls = 0
        self._own = secrets.token_hex(8)
        if self.rank == 0:
            self._open(self._own)
            self._welcome()
        else:
            self._shared.set(f"selftaught/hello/{self.rank}", self._own)

    def _open(self, name: str) -> None:
        from torch.distributed.distributed_c10d import PrefixStore

        self.store = PrefixStore(f"selftaught/{name}", self._shared)

    def _welcome(self) -> None:
        """The first process: answers the others until all are here.

        Raises:
            ConfigError: one has not come.
        """
        missing = set(range(1, self.size))
        answered: dict[int, str] = {}
        end = time.monotonic() + self.timeout.total_seconds()
        while missing:
            for rank in sorted(missing):
                if self.store.check([f"here/{rank}"]):
                    missing.remove(rank)
                elif self._shared.check([f"selftaught/hello/{rank}"]):
                    own = self._shared.get(f"selftaught/hello/{rank}").decode()
                    if answered.get(rank) != own:  # the first that is found may be of an earlier process
                        self._shared.set(f"selftaught/welcome/{own}", self._own)
                        answered[rank] = own
            if missing and time.monotonic() > end:
                waited = f"{self.timeout.total_seconds():g} seconds"
                raise ConfigError(
                    f"process {min(missing)} of {self.size} has not come in {waited}; see docs/cluster.md"
                )
            time.sleep(MEET_SECONDS if missing else 0)

    def _welcomed(self) -> None:
        """The others: wait until the first process is here, and has use for them."""
        key, seconds = f"selftaught/welcome/{self._own}", self.timeout.total_seconds()
        while not _answer(lambda: self._shared.check([key]), seconds):
            time.sleep(LOOK_SECONDS)
        self._open(_answer(lambda: self._shared.get(key), seconds).decode())
        self.store.set(f"here/{self.rank}", "")

    def call(self, more: bool) -> None:
        """The first process: has the others come to work, or go."""
        word = "work" if more else "end"
        _answer(lambda: self.store.set(f"call/{self._calls}", word), self.timeout.total_seconds())
        self._calls += 1

    def called(self) -> bool:
        """The others: wait until there is work; False at the end."""
        if self.store is None:
            self._welcomed()
        key, seconds = f"call/{self._calls}", self.timeout.total_seconds()
        while not _answer(lambda: self.store.check([key]), seconds):
            if self.error() is not None:
                raise Lost(LOST)
            time.sleep(LOOK_SECONDS)
        self._calls += 1
        return bool(_answer(lambda: self.store.get(key), seconds) == b"work")

    def tell(self, error: SelftaughtError) -> None:
        """Leaves word of why this process ends, unless another has."""
        import torch.distributed as dist

        self.failed = True
        word = pickle.dumps(error).hex()
        if self.store is not None:
            with suppress(dist.DistError, RuntimeError):
                _answer(lambda: self.store.compare_set("error", "", word), self._word_seconds)

    def error(self) -> SelftaughtError | None:
        """Why a process has ended, if one has left word."""
        import torch.distributed as dist

        with suppress(dist.DistError, RuntimeError):
            if self.store is not None and _answer(lambda: self.store.check(["error"]), self._word_seconds):
                word = _answer(lambda: self.store.get("error"), self._word_seconds)
                error: SelftaughtError = pickle.loads(bytes.fromhex(word.decode()))
                return error
        return None

    @property
    def _word_seconds(self) -> float:
        return min(WORD_SECONDS, self.timeout.total_seconds())

    def part(self) -> None:
        """The end of those who have exchanged nothing: the first keeps the store, maybe, until the others have gone."""
        import torch.distributed as dist

        if self.rank:
            self.store.set(f"gone/{self.rank}", "")
            return
        others = [f"gone/{rank}" for rank in range(1, self.size)]
        with suppress(dist.DistError, RuntimeError):
            _answer(lambda: self.store.wait(others, timedelta(seconds=WORD_SECONDS)), WORD_SECONDS)


def _answer(ask: Callable[[], T], seconds: float) -> T:
    """What the store says; torch itself would wait for it for ever where nothing comes through any more.

    Raises:
        Lost: nothing, in so many seconds.
    """
    answers: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()

    def wait() -> None:
        try:
            answers.put((ask(), None))
        except Exception as error:
            answers.put((None, error))

    threading.Thread(target=wait, daemon=True).start()
    try:
        answer, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise Lost(LOST) from None
    if error is not None:
        raise error
    return cast(T, answer)


@contextmanager
def _refused_in_words() -> Iterator[None]:
    """Raises ConfigError where the others cannot be met."""
    import torch.distributed as dist

    try:
        yield
    except (dist.DistError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        words = " ".join(str(error).split())[:200]
        raise ConfigError(f"the other processes cannot be met at {where} ({words}); see docs/cluster.md") from error
