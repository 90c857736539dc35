"""How a process uses the machine: threads, memory allocator, seeds' determinism. Call `prepare` first."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
import warnings
from pathlib import Path

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # of glibc's mallopt


def prepare() -> None:
    """Sets up this process for heavy tensor work. Call it before torch is imported.

    * Waiting threads sleep instead of spinning, unless the user chose otherwise: spinning threads make
      everything on a busy machine several times slower.
    * glibc gives each larger tensor fresh zeroed pages from the kernel and returns them at once; keeping
      those of up to 32 MiB saves up to a third of a training step. Larger ones are few, and go back.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # transformers 5.23 reads its own deprecated attribute
    warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
            libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
            libc.mallopt(_M_TOP_PAD, 64 << 20)


def release_memory() -> None:
    """Gives memory that was freed back to the system: after a phase that needed much, not in a loop."""
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def peak_memory_gib() -> float:
    """Largest resident memory of this process since `reset_peak_memory`, in GiB, without what it shares with others.

    Where the system does not tell them apart, or cannot reset, all counts as its own, since its start.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        kib = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in status.splitlines())
               if name in ("VmHWM", "RssShmem")}  # fmt: skip
        return (kib["VmHWM"] - kib["RssShmem"]) / 2**20
    except (OSError, KeyError, ValueError):
        try:
            import resource
        except ImportError:  # Windows
            return 0.0
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**30 if sys.platform == "darwin" else 2**20)


def reset_peak_memory() -> None:
    """Lets `peak_memory_gib` begin anew."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def memory_gib() -> float:
    """Memory of the machine, in GiB; 0 where the system does not tell."""
    names = getattr(os, "sysconf_names", {})
    if not {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= set(names):
        return 0.0
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
