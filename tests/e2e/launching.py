"""Commands that several processes run together, as torchrun starts them, and hosts in network namespaces of their own.

`launch` forks them quickly with the variables that torchrun sets; `torchrun` is the plain slow way.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from command import ENVIRONMENT, Running, start
from launched import free_port, variables

Hook = Callable[[], None]


def launch(
    size: int, *args: object, hooks: Mapping[int, Hook] | None = None, environment: Mapping[str, str] | None = None
) -> list[Running]:
    """`size` processes that run `selftaught args…` together, in order of rank.

    Args:
        size: how many.
        args: words of the command line.
        hooks: by rank, what is called before it begins; see `command.start`.
        environment: variables to set beside torchrun's.
    """
    port, hooks = free_port(), hooks or {}
    return [
        start(*args, environment={**variables(rank, size, port), **(environment or {})}, before=hooks.get(rank))
        for rank in range(size)
    ]


def send_before(number: int, module: str, name: str, call: int) -> None:
    """Makes the command's process send itself a signal before the given call of a module's function."""
    place: Any = importlib.import_module(module)
    plain, count = getattr(place, name), 0

    def watched(*words: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == call:
            os.kill(os.getpid(), number)
        return plain(*words, **options)

    setattr(place, name, watched)


def in_step(number: int, step: int) -> Hook:
    """A hook that sends the process a signal in the middle of a step, from 1: it is taken, and not yet told of."""
    return functools.partial(send_before, number, "selftaught.train.loop", "_signs", step)


def torchrun(
    *args: object, environment: Mapping[str, str] | None = None, before: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """`torchrun args…`, from this interpreter's torch; words of another command may come before it."""
    return subprocess.Popen(
        [*before, sys.executable, "-m", "torch.distributed.run", *map(str, args)],
        env={**os.environ, **ENVIRONMENT, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


# ------------------------------------------------------------------------------------------- namespaces

NEW_NETWORK = 0x40000000  # CLONE_NEWNET


class Host:
    """A network namespace with one end of a wire.

    Attributes:
        name: of the namespace.
        wire: the interface's name in it.
        address: its own.
    """

    def __init__(self, name: str, wire: str, address: str) -> None:
        self.name, self.wire, self.address = name, wire, address

    def enter(self) -> None:
        """Moves this process, which must have one thread, into the namespace."""
        libc = ctypes.CDLL(None, use_errno=True)
        with Path("/run/netns", self.name).open("rb") as file:
            if libc.setns(file.fileno(), NEW_NETWORK):
                raise OSError(ctypes.get_errno(), "setns")

    def cut(self) -> None:
        """Takes the wire away: nothing is refused, nothing arrives."""
        _ip("-n", self.name, "link", "set", self.wire, "down")

    def mend(self) -> None:
        """Puts it back."""
        _ip("-n", self.name, "link", "set", self.wire, "up")


def launch_on(
    hosts: tuple[Host, Host], *args: object, hook: Hook | None = None, environment: Mapping[str, str] | None = None
) -> list[Running]:
    """A process on each of two hosts, see `launch`; `hook` is called in the first."""
    started = []
    for rank, host in enumerate(hosts):
        values = variables(rank, 2, 29511) | {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
        values |= {"MASTER_ADDR": hosts[0].address, "GLOO_SOCKET_IFNAME": host.wire, **(environment or {})}
        inside = functools.partial(_inside, host, None if rank else hook)
        started.append(start(*args, environment=values, before=inside))
    return started


def _inside(host: Host, hook: Hook | None) -> None:
    host.enter()
    if hook is not None:
        hook()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def why_no_hosts() -> str | None:
    """Why there can be no namespaces here; None if there can."""
    if shutil.which("ip") is None:
        return "needs iproute2 (the command ip)"
    name = f"st{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True, text=True)
    if made.returncode:
        return f"needs the right to make network namespaces ({made.stderr.strip()[:80]})"
    wire = ["ip", "-n", name, "link", "add", "probe", "type", "veth", "peer", "name", "eborp"]
    wired = subprocess.run(wire, check=False, capture_output=True, text=True)
    _ip("netns", "delete", name)
    return f"needs virtual wires, veth ({wired.stderr.strip()[:80]})" if wired.returncode else None


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts that see each other and nothing else."""
    key = secrets.token_hex(3)
    hosts = Host(f"st{key}a", f"st{key}a", "10.77.0.1"), Host(f"st{key}b", f"st{key}b", "10.77.0.2")
    one, two = hosts
    made: list[Host] = []
    try:
        for host in hosts:
            _ip("netns", "add", host.name)
            made.append(host)
        _ip("-n", one.name, "link", "add", one.wire, "type", "veth", "peer", "name", two.wire, "netns", two.name)
        for host in hosts:
            _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", host.wire)
            for link in ("lo", host.wire):
                _ip("-n", host.name, "link", "set", link, "up")
        yield hosts
    finally:
        for host in made:
            _ip("netns", "delete", host.name)


def has_stopped(pid: int) -> bool:
    """Whether a process was sent SIGSTOP, and has taken it."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "T"
