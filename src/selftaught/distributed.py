"""Processes that torchrun has started, on one machine or on many, each with a GPU where there are any.

All are started with the same words. The first (rank 0) does what they say; the others wait until it has work for them,
and do their share of it, as those that `processes` starts. What they exchange goes through torch.distributed: gloo
between processors, nccl between GPUs. There is no memory that all see.

A process that is killed, or hangs, ends the others too: the next exchange fails, at the latest after
`SELFTAUGHT_TIMEOUT_SECONDS` (1800), and what is done is kept in the last checkpoint.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NoReturn, TypeVar

from selftaught.errors import ConfigError, SelftaughtError, TrainingError
from selftaught.meeting import LOST, Lost, Meeting, number
from selftaught.processes import ProcessGroup, num_processes, process_group

T = TypeVar("T")
VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # as torchrun and Kubernetes' PyTorchJob set them


def launched() -> bool:
    """Whether torchrun, or something that sets the same variables, has started this process."""
    return all(os.environ.get(name) for name in VARIABLES)


def launched_size() -> int:
    """How many it has started."""
    return int(os.environ["WORLD_SIZE"])


def check_parallel(parallel: str, distributed: bool) -> None:
    """Refuses a way to train together that these processes do not have.

    Raises:
        ConfigError: it needs torchrun.
    """
    if parallel != "auto" and not distributed:
        raise ConfigError(
            f"parallel: {parallel} is for processes that torchrun has started: "
            "torchrun --nproc-per-node N -m selftaught …; or leave it out"
        )


class DistributedGroup(ProcessGroup):
    """What a process knows of those that torchrun has started beside it."""

    distributed = True

    def gather(self, value: T) -> list[T]:
        """See `ProcessGroup`; tensors on a GPU come to lie on this process's own."""
        import torch.distributed as dist

        if self.size == 1:
            return [value]
        packed: list[Any] = [None] * self.size
        dist.all_gather_object(packed, _packed(value))
        return [value if rank == self.rank else _unpacked(data) for rank, data in enumerate(packed)]

    def in_turn(self, work: Callable[[], T]) -> T:
        """Does something that needs much memory for a moment, on each machine one process after another."""
        own, most = number("LOCAL_RANK", 0), max(self.gather(number("LOCAL_WORLD_SIZE", 1)))
        for turn in range(most):
            if turn == own:
                result = work()
            self.wait()
        return result

    def shared_memory(self, *_: Any, **__: Any) -> NoReturn:
        """There is none; see `train.distributed_optim`."""
        raise AssertionError("processes of torchrun share no memory")


class _Session(Meeting):
    """This process's connection to the others, from the first need of it to the end."""

    def __init__(self) -> None:
        self.group: DistributedGroup | None = None
        signal.signal(signal.SIGTERM, _ended_from_outside)
        super().__init__()

    def joined(self) -> DistributedGroup:
        """The group of all; everyone must come."""
        import torch
        import torch.distributed as dist
        from torch.distributed.distributed_c10d import PrefixStore

        if self.group is None:
            backend, device = "gloo", None
            if torch.cuda.is_available():
                backend, device = "cpu:gloo,cuda:nccl", _own_gpu()
            dist.init_process_group(
                backend,
                store=PrefixStore("torch", self.store),
                rank=self.rank,
                world_size=self.size,
                timeout=self.timeout,
                device_id=device,
            )
            self.group = DistributedGroup(self.rank, self.size)
        return self.group

    def end(self) -> None:
        """All come here at the end: a process that leaves while another is still in an exchange aborts it."""
        import torch.distributed as dist

        if self.group is None:
            self.part()
        else:
            dist.barrier()
            dist.destroy_process_group()


_sessions: list[_Session] = []  # none, or the one of this process


def _session() -> _Session:
    if not _sessions:
        _sessions.append(_Session())
    return _sessions[0]


def working_group(
    wanted: int, batch_size: int, weight_bytes: int, work: Callable[..., Any], *arguments: Any
) -> AbstractContextManager[ProcessGroup]:
    """Those that torchrun has started; else as many as `num_processes` says, which are started here.

    Args:
        wanted: 0 is as many as there are, or as is sensible.
        batch_size: rows of a step.
        weight_bytes: of the model's files.
        work: what the others call, see `process_group`.
        *arguments: picklable.

    Raises:
        ConfigError: more or fewer are wanted than torchrun has started.
    """
    size = group_size(wanted, batch_size, weight_bytes)
    return launched_group(work, *arguments) if launched() else process_group(size, work, *arguments)


def group_size(wanted: int, batch_size: int, weight_bytes: int) -> int:
    """How many `working_group` has work together; it says what is given and raised."""
    if not launched():
        return num_processes(wanted, batch_size, weight_bytes)
    if wanted not in (0, launched_size()):
        raise ConfigError(f"processes: torchrun has started {launched_size()}, not {wanted}; leave --processes out")
    return launched_size()


@contextmanager
def launched_group(work: Callable[..., Any], *arguments: Any) -> Iterator[DistributedGroup]:
    """The first process: has the others call `work(*arguments, group)`, while it does the same itself.

    Raises:
        TrainingError: another process is gone.
        SelftaughtError: what another process raised.
    """
    session = _session()
    try:
        session.call(more=True)
        group = session.joined()
        group.gather((work, arguments))
        yield group
        group.wait()
    except SelftaughtError as error:
        session.tell(error)
        raise session.error() or error from None
    except RuntimeError as error:
        session.failed = True
        if not _is_loss(error):
            session.tell(TrainingError(f"a training process met an error: {type(error).__name__}: {error}"))
            raise
        raise session.error() or TrainingError(LOST) from error
    except BaseException:
        session.tell(TrainingError("the first process was interrupted"))
        raise


def assist() -> int:
    """What every process but the first does: its share of each work, until there is no more.

    Returns:
        The exit code.
    """
    from selftaught.runtime import prepare

    prepare()
    try:
        session = _session()
    except ConfigError as error:  # nobody else would hear of it
        print(f"selftaught: process {os.environ['RANK']}: {error}", file=sys.stderr)
        return 2
    try:
        while session.called():
            group = session.joined()
            started: list[Any] = group.gather(None)
            work, arguments = started[0]
            work(*arguments, group)
            group.wait()
        session.end()
        return 0
    except KeyboardInterrupt:
        return 1
    except Lost:
        _say_lost(session)
    except SelftaughtError as error:
        session.tell(error)  # the first process tells the user
    except Exception as error:
        if _is_loss(error):
            _say_lost(session)
        else:
            traceback.print_exc()
            session.tell(TrainingError(f"a training process met an error: {type(error).__name__}: {error}"))
    sys.stderr.flush()
    os._exit(1)  # threads of a broken exchange could keep it, or abort it


def finish(code: int) -> None:
    """The first process's end: lets the others go. After an error it leaves at once, with an exit code."""
    try:
        session = _session()
    except ConfigError:  # as it has been told
        return
    if session.failed:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    session.call(more=False)
    session.end()


def _ended_from_outside(*_: Any) -> NoReturn:
    """torchrun ends all when one has ended; so does a scheduler that takes the machine back."""
    raise Lost(LOST)


def _say_lost(session: _Session) -> None:
    if session.error() is None:  # else the first process says what it was
        print(f"selftaught: process {session.rank}: {LOST}", file=sys.stderr)


def _is_loss(error: Exception) -> bool:
    """Whether an exchange failed because another process is gone; gloo has no error of its own."""
    import torch.distributed as dist

    if isinstance(error, dist.DistError):
        return True
    words = str(error)
    return isinstance(error, RuntimeError) and any(word in words for word in ("gloo", "Connection", "onnection reset"))


def _own_gpu() -> Any:
    import torch

    own = number("LOCAL_RANK", 0)
    if own >= torch.cuda.device_count():
        raise ConfigError(f"{own + 1} processes or more on a machine with {torch.cuda.device_count()} GPUs: one each")
    torch.cuda.set_device(own)
    return torch.device("cuda", own)


def _packed(value: Any) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _unpacked(data: bytes) -> Any:
    import torch

    def here(storage: Any, place: str) -> Any:
        return storage.cuda() if place.startswith("cuda") else storage

    return torch.load(io.BytesIO(data), map_location=here, weights_only=False)
