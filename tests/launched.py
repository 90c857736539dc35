"""Starts processes with the variables that torchrun sets, and hands back what the first of them found.

Importing torch takes seconds: they are forked from one server process that has done so (multiprocessing's forkserver).
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import sys
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

PRELOADED = [
    "selftaught.train.loop",
    "selftaught.evaluation.drift",
    "torch.distributed.checkpoint.state_dict_loader",
    "torch.distributed.checkpoint.state_dict_saver",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    "peft",
    "transformers.models.llama.modeling_llama",
    "launched",
]


def variables(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun sets."""
    values = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in values.items()}}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def start(size: int, work: Callable[..., None], log: Path, *arguments: Any, **more: str) -> list[BaseProcess]:
    """So many processes, each of which calls a module's function; their output goes to `log.0`, `log.1`, …

    Args:
        size: how many.
        work: what each calls.
        log: where their output goes.
        *arguments: of `work`.
        **more: environment variables.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    port, started = free_port(), []
    for rank in range(size):
        environment = {**variables(rank, size, port), **more}
        output = str(log.with_name(f"{log.name}.{rank}"))
        started.append(context.Process(target=_begin, args=(environment, output, work, arguments)))
        started[-1].start()
    return started


def _begin(environment: dict[str, str], output: str, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    file = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
    os.environ.update(environment)
    import torch

    torch.set_num_threads(1)
    work(*arguments)


def said(log: Path) -> list[str]:
    """What each process has written."""
    return [path.read_text(encoding="utf-8") for path in sorted(log.parent.glob(f"{log.name}.*"))]


def launched(size: int, jobs: Sequence[tuple[str, tuple[Any, ...]]], folder: Path) -> list[Any]:
    """What the first of `size` processes found in doing jobs of `process_work`, see `process_work.do_all`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "jobs").write_bytes(pickle.dumps(list(jobs)))
    started = start(size, do_jobs, folder / "log", str(folder))
    for process in started:
        process.join(600)
    codes = [process.exitcode for process in started]
    assert codes == [0] * size, (codes, said(folder / "log"))
    found: list[Any] = pickle.loads((folder / "found").read_bytes())
    return found


def do_jobs(place: str) -> None:
    """One process's part of `launched`."""
    from process_work import do_all

    from selftaught import distributed

    if os.environ["RANK"] != "0":
        sys.exit(distributed.assist())
    jobs = pickle.loads(Path(place, "jobs").read_bytes())
    with distributed.launched_group(do_all, jobs) as group:
        found = do_all(jobs, group)
    Path(place, "found").write_bytes(pickle.dumps(found))
    distributed.finish(0)
