"""Several processes that do one job together, on one machine, each with its part of every batch.

Torch's threads gain little on small matrices, and wait for one another; processes of one thread each
gain what the cores have to give. All run the same code on the same data, and differ in `rank` only: each takes its
share of rows, and they exchange what must be common. Weights and the optimiser's state lie in memory that
all of them see, once; each process adds its gradient, and what it computes with.

The first process (rank 0) is the one that was called: it alone reports, and writes files.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from selftaught.errors import GO_ON, ConfigError, SelftaughtError, TrainingError
from selftaught.runtime import memory_gib, num_cores

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")
PROCESS_GIB = 1.5  # what a process needs beside weights and gradients
MAX_PROCESSES = 8  # a default beyond this would leave too few rows each; the other cores become threads


class Connection:
    """Carries objects between two processes."""

    def __init__(self, reader: IO[bytes], writer: IO[bytes]) -> None:
        self._reader, self._writer = reader, writer

    def send(self, value: Any) -> None:
        """Returns when it is on its way."""
        pickle.dump(value, self._writer, pickle.HIGHEST_PROTOCOL)
        self._writer.flush()

    def receive(self) -> Any:
        """Waits for a value.

        Raises:
            EOFError: the other process is gone.
        """
        return pickle.load(self._reader)

    def close(self) -> None:
        """Tells the other process that nothing more will come."""
        for stream in (self._writer, self._reader):
            with suppress(OSError):
                stream.close()


class ProcessGroup:
    """What a process knows of those it works with.

    Attributes:
        rank: which of them it is, from 0.
        size: how many there are.
        shared_bytes: memory that all of them see, since it was last set to 0.
        distributed: whether torchrun has started them: they share no memory, and may be on several machines.
    """

    distributed = False

    def __init__(self, rank: int = 0, size: int = 1, connections: Sequence[Connection] = ()) -> None:
        self.rank, self.size = rank, size
        self.shared_bytes = 0
        self._connections = connections  # rank 0: one to each other process; the others: one to rank 0

    @property
    def first(self) -> bool:
        """Whether this is the process that reports and writes."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's items: every `size`-th, from the `rank`-th on."""
        return list(items[self.rank :: self.size])

    def merged(self, shares: Sequence[Sequence[T]]) -> list[T]:
        """Everyone's shares, back in the order of the items that `share` divided."""
        result: list[Any] = [None] * sum(map(len, shares))
        for rank, share in enumerate(shares):
            result[rank :: self.size] = share
        return result

    def gather(self, value: T) -> list[T]:
        """Everyone's value, in order of rank; waits until all have come to the same place.

        Raises:
            TrainingError: another process is gone.
        """
        if self.size == 1:
            return [value]
        try:
            if not self.first:
                self._connections[0].send(value)
                return list(self._connections[0].receive())
            values = [value, *(_received(connection) for connection in self._connections)]
            for connection in self._connections:
                connection.send(values)
            return values
        except SelftaughtError:  # another's, of which one is an OSError
            raise
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            if not self.first:
                os._exit(1)  # the process that was called is gone, killed perhaps: nobody would hear of this work
            raise TrainingError(
                "a training process ended unexpectedly, killed perhaps for lack of memory; what is done is kept: "
                f"{GO_ON}, perhaps with fewer --processes"
            ) from error

    def sum(self, *values: Any) -> Any:
        """Each number, summed over the processes in order of rank; one number alone, or a list."""
        sums = [sum(column) for column in zip(*self.gather(values), strict=True)]
        return sums if len(sums) > 1 else sums[0]

    def wait(self) -> None:
        """Returns when all have come to this place."""
        self.gather(None)

    def shared_memory(self, size: int, dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
        """[size] zeros; the same memory in every process. All must ask in the same order."""
        import torch

        if self.size == 1:
            return torch.zeros(size, dtype=dtype, device=device)
        num_bytes = size * torch.empty(0, dtype=dtype).element_size()
        with self._new_file(num_bytes) if self.first else nullcontext("") as own:
            memory = torch.from_file(self.gather(own)[0], shared=True, size=size, dtype=dtype)
            self.wait()  # until all have opened it; from then on it lives as long as one of them uses it
        self.shared_bytes += num_bytes
        return memory

    @contextmanager
    def _new_file(self, num_bytes: int) -> Iterator[str]:
        """The path of a file that lives in memory where the system can (/dev/shm is often small)."""
        if hasattr(os, "memfd_create"):
            with os.fdopen(os.memfd_create("selftaught"), "wb") as file:
                file.truncate(num_bytes)
                yield f"/proc/{os.getpid()}/fd/{file.fileno()}"
        else:
            with tempfile.NamedTemporaryFile(prefix="selftaught-") as named:
                named.truncate(num_bytes)
                yield named.name

    def close(self) -> None:
        """Ends the connections; the others end when they next look for theirs."""
        for connection in self._connections:
            connection.close()


ALONE = ProcessGroup()
"""The group of a process that works by itself."""


def num_processes(wanted: int, batch_size: int, weight_bytes: int = 0) -> int:
    """How many to start.

    Args:
        wanted: 0 is one a core, as far as a batch has rows and the machine has memory for them.
        batch_size: rows of a step.
        weight_bytes: of the model's files, taken to be 2 a weight.

    Raises:
        ConfigError: more than one was wanted where they cannot share memory.
    """
    import torch

    if sys.platform == "win32" or torch.cuda.is_available() or torch.backends.mps.is_available():
        if wanted > 1:
            raise ConfigError(
                f"processes: {wanted} cannot share a GPU's memory, or any on Windows; leave it out, "
                "or start them by torchrun (docs/cluster.md)"
            )
        return 1
    if wanted:
        return wanted
    weights = weight_bytes / 2 / 2**30  # in units of 2³⁰
    room = (0.9 * memory_gib() - 16 * weights) / (4 * weights + PROCESS_GIB)  # float32 state once, gradients each
    return max(1, min(num_cores(), batch_size, MAX_PROCESSES, int(room) if memory_gib() else MAX_PROCESSES))


@contextmanager
def process_group(size: int, work: Callable[..., Any], *arguments: Any) -> Iterator[ProcessGroup]:
    """Starts `size` − 1 more processes, which call `work(*arguments, group)`; this one does the same itself.

    Args:
        size: how many processes.
        work: a function at the top level of a module of this package.
        *arguments: picklable.

    Raises:
        SelftaughtError: what another process raised while this one waited for it.
    """
    import torch

    if size == 1:
        yield ALONE
        return
    threads_before = torch.get_num_threads()
    torch.set_num_threads(max(1, num_cores() // size))
    children = [_start(rank, size) for rank in range(1, size)]
    connections = [Connection(child.stdout, child.stdin) for child in children if child.stdout and child.stdin]
    group = ProcessGroup(0, size, connections)
    try:
        group.gather((work, arguments))
        yield group
        group.wait()  # the others may still be at work on what lies in shared memory
        for child in children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(timeout=10)
    finally:
        for child in children:
            child.kill()
            child.wait()
        group.close()
        torch.set_num_threads(threads_before)


def _start(rank: int, size: int) -> subprocess.Popen[bytes]:
    """A process of this package, not a copy of the caller's script; the terminal's Ctrl-C does not reach it."""
    threads = str(max(1, num_cores() // size))
    path = [str(Path(folder or ".").absolute()) for folder in sys.path]  # as here, so that the same code is found
    begin = f"import sys; sys.path[:] = {path!r}; from selftaught.processes import _main; _main({rank}, {size})"
    return subprocess.Popen(
        [sys.executable, "-c", begin],
        env={**os.environ, "OMP_NUM_THREADS": threads},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )


def _received(connection: Connection) -> Any:
    value = connection.receive()
    if isinstance(value, SelftaughtError):
        raise value
    return value


def _end_with(parent: int) -> None:
    """Ends this process when the one that began it is gone, killed perhaps: nobody would hear of its work."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _main(rank: int, size: int) -> None:
    """A process of rank above 0."""
    from selftaught.runtime import prepare

    prepare()
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever is printed must not get between the values
    connection = Connection(sys.stdin.buffer, channel)
    group = ProcessGroup(rank, size, [connection])
    started: list[Any] = group.gather(None)
    work, arguments = started[0]
    try:
        work(*arguments, group)
        group.wait()
    except SelftaughtError as error:
        with suppress(OSError):
            connection.send(error)
    except Exception as error:
        traceback.print_exc()  # before the first process hears of it, and ends this one
        with suppress(OSError):
            connection.send(TrainingError(f"a training process met an error: {type(error).__name__}: {error}"))
        sys.exit(1)
