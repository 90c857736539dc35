"""The files of a folder, in one order, each once."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from selftaught.data.documents.types import Status


@dataclass(frozen=True)
class Found:
    """A file, or a folder that could not be entered.

    Attributes:
        path: where it is.
        name: below the folder that is walked, with "/"; characters that are not Unicode are escaped.
        status: what becomes of it, if that is known already.
        note: why.
    """

    path: Path
    name: str
    status: Status | None = None
    note: str = ""


def walk(root: Path, leave_out: Path) -> Iterator[Found]:
    """Files below a folder, or the one file that it is, in sorted order.

    Hidden files and folders (".name", and "~$name", which are Word's locks) are left out. Links are followed, and a
    folder to which several lead is entered once.

    Args:
        root: a folder or a file.
        leave_out: a folder that is not entered.

    Yields:
        What was found.
    """
    left_out, entered = _identity(leave_out), set()
    stack = [(root, "" if _is_folder(root) else printable(root.name))]
    while stack:
        path, name = stack.pop()
        if not _is_folder(path):
            yield _file(path, name)
            continue
        identity = _identity(path)
        if identity == left_out:
            continue
        if identity in entered:
            yield Found(path, f"{name}/", "duplicate", "a link to a folder that is read already")
            continue
        entered.add(identity)
        try:
            children = sorted(path.iterdir(), reverse=True)  # the stack turns them round
        except OSError as error:
            reason = f"a folder that cannot be opened ({error.strerror}); check your rights to it"
            yield Found(path, f"{name}/", "unreadable", reason)
            continue
        prefix = f"{name}/" if name else ""
        stack += [(child, prefix + printable(child.name)) for child in children if not _is_hidden(child.name)]


def is_there(path: Path) -> bool:
    """Whether there is a file or a folder of that name."""
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _file(path: Path, name: str) -> Found:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return Found(path, name, "unreadable", f"leads to nothing that can be opened ({error.strerror})")
    if not stat.S_ISREG(mode):  # a pipe would keep us waiting
        return Found(path, name, "unsupported", "not a regular file")
    return Found(path, name)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # in a folder that may be listed and not entered
        return False


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "~$"))


def printable(name: str) -> str:
    """A name that can be written as text: characters that are not Unicode are escaped."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
