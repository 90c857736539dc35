"""Starts processes as torchrun does, each with its variables, and hands back what the first of them found."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BEGIN = "import sys; sys.path[:] = {path!r}; from launched import _main; _main({place!r})"


def environment(rank: int, size: int, port: int, **more: str) -> dict[str, str]:
    """What torchrun sets."""
    ranks = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    values = {name: str(value) for name, value in ranks.items()}
    return {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", **values, **more}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def start(size: int, words: Sequence[str], log: Path, **more: str) -> list[subprocess.Popen[bytes]]:
    """So many processes of Python with the same words; their output goes to `log.0`, `log.1`, …"""
    port, started = free_port(), []
    for rank in range(size):
        with log.with_name(f"{log.name}.{rank}").open("wb") as file:
            started.append(
                subprocess.Popen(
                    [sys.executable, *words], env=environment(rank, size, port, **more), stdout=file, stderr=file
                )
            )
    return started


def launched(size: int, jobs: Sequence[tuple[str, tuple[Any, ...]]], folder: Path) -> list[Any]:
    """What the first of `size` processes found in doing jobs of `process_work`, see `process_work.do_all`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "jobs").write_bytes(pickle.dumps(list(jobs)))
    begin = BEGIN.format(path=[str(Path(place or ".").absolute()) for place in sys.path], place=str(folder))
    started = start(size, ["-W", "error::UserWarning:selftaught", "-c", begin], folder / "log")
    codes = [process.wait(timeout=600) for process in started]
    said = "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("log.*")))
    assert codes == [0] * size, (codes, said)
    found: list[Any] = pickle.loads((folder / "found").read_bytes())
    return found


def _main(place: str) -> None:
    from process_work import do_all

    from selftaught import distributed

    if os.environ["RANK"] != "0":
        sys.exit(distributed.assist())
    jobs = pickle.loads(Path(place, "jobs").read_bytes())
    with distributed.launched_group(do_all, jobs) as group:
        found = do_all(jobs, group)
    Path(place, "found").write_bytes(pickle.dumps(found))
    distributed.finish(0)
