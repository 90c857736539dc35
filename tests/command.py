"""Runs the command line in processes of its own, as a user would, and quickly.

Importing torch takes seconds, so `start` forks each command from one server process that has it loaded
already (multiprocessing's forkserver). Output goes to files, each command is a session of its own, and a
signal reaches its whole group, as Ctrl-C in a terminal does. `python_m` is the plain slow way.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PRELOADED = [
    "selftaught.cli.app",
    "selftaught.main_job",
    "selftaught.train.loop",
    "selftaught.evaluation.drift",
    "selftaught.reports.html",
    "matplotlib.figure",
    "matplotlib.projections",
    "matplotlib.backends.backend_svg",
    "peft",
    "transformers.models.llama.modeling_llama",
]
# One thread a process, and no network that could be waited for.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1", "NO_COLOR": "1", "COLUMNS": "120"}

QUICK_SETTINGS = [
    *["probes=false", "batch_size=2", "anchor.pool=4", "anchor.rows=1", "anchor.max_new_tokens=8"],
    *["rollout.max_new_tokens=8", "warmup_steps=1", "learning_rate=3e-3", "weights.kind=full"],
]
QUICK = [*(word for setting in QUICK_SETTINGS for word in ("-s", setting)), "--processes", "1"]
"""Settings with which the tiny model learns a little in a second; another process would take seconds to start."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def error_line(self) -> str:
        """What a command that failed as it should said: one line, and exit code 2."""
        assert self.code == 2, (self.code, self.err)
        assert self.out == ""
        lines = self.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("selftaught: "), self.err
        return lines[0]

    @property
    def json(self) -> Any:
        """Its standard output, which holds JSON and nothing else."""
        assert self.code == 0, self.err
        return json.loads(self.out)


class Running:
    """A command at work."""

    def __init__(
        self,
        args: tuple[str, ...],
        environment: Mapping[str, str],
        max_file_bytes: int | None,
        before: Callable[[], None] | None,
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="selftaught-test-"))
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        target_args = (args, dict(environment), str(self._folder), max_file_bytes, before)
        self._process = context.Process(target=_command, args=target_args)
        self._process.start()

    @property
    def pid(self) -> int:
        """Its process id, which is also its group's."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def children(self) -> list[int]:
        """Processes that it started, by /proc; zombies are left out."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it has just ended
                state, parent, *_ = path.read_text(encoding="utf-8").rpartition(")")[2].split()
                if int(parent) == self.pid and state != "Z":
                    found.append(int(path.parent.name))
        return found

    @property
    def said(self) -> str:
        """Its standard output so far."""
        return self._text("out")

    @property
    def complained(self) -> str:
        """Its standard error so far."""
        return self._text("err")

    def _text(self, name: str) -> str:
        path = self._folder / name
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def signal(self, number: int) -> None:
        """Sends a signal to the command and its group, as a terminal does; what it started is in none of them."""
        for _ in range(200):  # until it leads its own group
            if (self._folder / "begun").exists():
                break
            time.sleep(0.05)
        os.killpg(self.pid, number)

    def end(self) -> None:
        """Ends it if it is still there, stopped or not."""
        if self._process.is_alive():
            self.signal(signal.SIGKILL)
            self._process.join()

    def kill_when(self, ready: Callable[[], bool], timeout: float = 60.0) -> None:
        """Kills it, and waits for its end, as soon as something is so."""
        self.wait_until(ready, timeout)
        self.signal(signal.SIGKILL)
        assert self.wait().code == -signal.SIGKILL

    def wait_until(self, ready: Callable[[], bool], timeout: float = 60.0) -> None:
        """Waits until something is so; that the command ends first is an error."""
        end = time.monotonic() + timeout
        while not ready():
            assert self._process.is_alive(), f"it ended too soon: {self.wait()}"
            assert time.monotonic() < end, "it took too long"
            time.sleep(0.002)

    def wait(self, timeout: float = 120.0) -> Outcome:
        """Its end."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self.signal(signal.SIGKILL)
            self._process.join()
            raise AssertionError(f"it took more than {timeout} seconds")
        out, err = ((self._folder / name).read_text(encoding="utf-8") for name in ("out", "err"))
        shutil.rmtree(self._folder)
        return Outcome(self._process.exitcode, out, err)


def start(
    *args: object,
    environment: Mapping[str, str] | None = None,
    max_file_bytes: int | None = None,
    before: Callable[[], None] | None = None,
) -> Running:
    """Starts `selftaught args…`.

    Args:
        args: words of the command line.
        environment: variables to set.
        max_file_bytes: no file may grow beyond this, which is what a full disk looks like to a program.
        before: called in the command's process before it begins; a function of a module.
    """
    return Running(tuple(map(str, args)), {**ENVIRONMENT, **(environment or {})}, max_file_bytes, before)


def run(*args: object, **options: Any) -> Outcome:
    """`start`, and wait for the end."""
    return start(*args, **options).wait()


def all_gone(pids: Iterable[int], timeout: float = 10.0) -> bool:
    """Whether processes have ended, or do so in a few seconds."""
    end = time.monotonic() + timeout
    while left := [pid for pid in pids if _is_running(pid)]:
        if time.monotonic() > end:
            return False
        pids = left
        time.sleep(0.02)
    return True


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def python_m(*args: object) -> Outcome:
    """`python -m selftaught args…` in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-m", "selftaught", *map(str, args)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, **ENVIRONMENT},
        check=False,
        timeout=120,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def _command(
    args: tuple[str, ...],
    environment: dict[str, str],
    folder: str,
    max_file_bytes: int | None,
    before: Callable[[], None] | None,
) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(Path(folder) / name, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
    os.environ.update(environment)
    if max_file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
    if before is not None:
        before()
    sys.argv = ["selftaught", *args]
    Path(folder, "begun").touch()
    from selftaught.cli import main

    try:
        main()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
