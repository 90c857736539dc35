"""Files that are written whole or not at all, and are verified when read."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from selftaught.errors import ArtifactError

MANIFEST = "manifest.json"
LOCK = ".lock"

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    """Asks the disk to keep a file, or a folder's entries, before we go on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all.

    Raises:
        ArtifactError: the disk is full or the place cannot be written.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all.

    Raises:
        ArtifactError: the disk is full or the place cannot be written.
    """
    with _whole_file(path) as file, _readable_write_errors(path):
        file.write(data)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Writes a text file whole or not at all, line by line, as they come.

    Args:
        path: the file.
        lines: with their line ends. What raises in making them passes through as it is.

    Raises:
        ArtifactError: the disk is full or the place cannot be written.
    """
    with _whole_file(path) as file:
        for line in lines:
            with _readable_write_errors(path):
                file.write(line.encode("utf-8"))


@contextmanager
def _whole_file(path: Path) -> Iterator[BinaryIO]:
    """Yields a draft that becomes `path` when the block ends well, and is gone when it raises."""
    with _readable_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            with _readable_write_errors(path):
                file.flush()
                os.fsync(file.fileno())
        with _readable_write_errors(path):
            Path(name).chmod(0o644)
            Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    with _readable_write_errors(path):
        _sync(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file of ours.

    Raises:
        ArtifactError: it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}); it is missing or damaged") from error


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """Yields an empty folder that becomes `path`, with a manifest of hashes, when the block ends well.

    If the block raises, or the process dies in it, `path` is as it was before. An older `path` is
    replaced: for an instant between two renames it lies beside it under a hidden name, from which
    `recover_directory` brings it back.

    Raises:
        ArtifactError: the disk is full or the place cannot be written.
    """
    aside = path.with_name(f".{path.name}.old")
    with _readable_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        recover_directory(path)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.{os.getpid()}.", suffix=".tmp", dir=path.parent))
        try:
            yield draft
            write_json(draft / MANIFEST, {name: sha256_of(draft / name) for name in _members(draft)})
            for name in _members(draft):
                (draft / name).chmod(0o644)
                _sync(draft / name)
            draft.chmod(0o755)
            if path.exists():
                path.replace(aside)
            draft.replace(path)
            _sync(path.parent)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            recover_directory(path)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def discard(path: Path) -> None:
    """Removes a file or folder, if it is there; at no moment is a part of it left under its name.

    Raises:
        ArtifactError: it cannot be removed.
    """
    if not path.exists():
        return
    try:
        aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".discarded", dir=path.parent))
        path.replace(aside / path.name)
        shutil.rmtree(aside)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be removed ({error.strerror})") from error


def recover_directory(path: Path) -> None:
    """Brings `path` back after a process died between the two renames of `whole_directory`."""
    aside = path.with_name(f".{path.name}.old")
    if aside.exists():
        if path.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.replace(path)
    for draft in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        if not _is_alive(draft.name.split(".")[-3]):
            shutil.rmtree(draft, ignore_errors=True)


def _is_alive(pid: str) -> bool:
    """Whether another process that writes a draft is still at it; our own older drafts are left-overs."""
    if not pid.isdecimal() or int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def locked(folder: Path, hint: str = "wait, or choose another --out") -> Iterator[None]:
    """Keeps every other process out of a folder while the block runs. The lock dies with its process.

    Args:
        folder: made if missing.
        hint: what the one who is kept out can do.

    Raises:
        ArtifactError: another process has it.
    """
    with _readable_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("w")
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ArtifactError(f"{folder}: another process is at work in it; {hint}") from error
        yield


def verify_directory(path: Path, hint: str = "delete this folder and make it again") -> None:
    """Checks every file of a folder against its manifest.

    Args:
        path: the folder.
        hint: how to mend it.

    Raises:
        ArtifactError: a file is missing or has changed.
    """
    manifest = read_json(path / MANIFEST)
    if not isinstance(manifest, dict):
        raise ArtifactError(f"{path}: {MANIFEST} is damaged; {hint}")
    for name, digest in manifest.items():
        if not (path / name).is_file():
            raise ArtifactError(f"{path}: {name} is missing; {hint}")
        if sha256_of(path / name) != digest:
            raise ArtifactError(f"{path}: {name} is damaged (its hash differs); {hint}")


def _members(folder: Path) -> list[str]:
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    return sorted(str(p.relative_to(folder)) for p in files)


@contextmanager
def _readable_write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except ArtifactError:
        raise
    except Exception as error:
        # safetensors and tokenizers, written in Rust, raise errors of their own that end in "(os error 28)"
        if not isinstance(error, OSError) and "(os error " not in str(error):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        forbidden = getattr(error, "errno", None) in (errno.EACCES, errno.EPERM, errno.EROFS)
        mend = "choose a place that you may write to" if forbidden else "free some space or choose another place"
        raise ArtifactError(f"{path}: cannot be written ({reason}); {mend}") from error
