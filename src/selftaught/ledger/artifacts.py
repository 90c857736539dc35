"""Content-addressed artifacts: files and folders whose name is the hash of what they hold.

A file is named by its SHA-256. A folder (a model) is named by the SHA-256 of its manifest, which holds
each member's. So an artifact that is there under its name is whole, or damaged, and anyone can tell which.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from selftaught.errors import ArtifactError
from selftaught.files import MANIFEST, discard, sha256_of, verify_directory, whole_directory, write_bytes

RESTORE = "restore it from a backup"


class Artifacts:
    """A folder of artifacts.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, digest: str) -> Path:
        """Where an artifact lies, if it does."""
        return self.root / digest

    def put_text(self, text: str) -> str:
        """Keeps a text; the same text twice is one artifact.

        Returns:
            Its digest.
        """
        data = text.encode("utf-8")
        digest = hashlib.sha256(data).hexdigest()
        if not self._is_whole(digest):
            write_bytes(self.path(digest), data)
        return digest

    def put_folder(self, source: Path) -> str:
        """Keeps a copy of a folder, without hidden files.

        Returns:
            Its digest.

        Raises:
            ArtifactError: it holds no files, changes meanwhile, or cannot be kept.
        """
        manifest = {name: sha256_of(source / name) for name in _members(source)}
        if not manifest:
            raise ArtifactError(f"{source}: holds no files that could be kept")
        digest = _manifest_digest(manifest)
        if self._is_whole(digest):
            return digest
        discard(self.path(digest))
        with whole_directory(self.path(digest)) as draft:
            for name in list(manifest):
                (draft / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, draft / name)
                if sha256_of(draft / name) != manifest[name]:
                    raise ArtifactError(f"{source}: {name} was changed while it was copied; try again")
        return digest

    def text(self, digest: str) -> str:
        """A kept text.

        Raises:
            ArtifactError: it is missing or damaged.
        """
        self.verify(digest)
        return self.path(digest).read_bytes().decode("utf-8")

    def folder(self, digest: str) -> Path:
        """A kept folder, verified.

        Raises:
            ArtifactError: it is missing or damaged.
        """
        self.verify(digest)
        return self.path(digest)

    def verify(self, digest: str) -> None:
        """Checks every byte of an artifact.

        Raises:
            ArtifactError: it is missing or damaged.
        """
        path = self.path(digest)
        try:
            if path.is_dir():
                self._verify_folder(path, digest)
            elif not path.is_file():
                raise ArtifactError(f"{path}: is missing; {RESTORE}")
            elif sha256_of(path) != digest:
                raise ArtifactError(f"{path}: is damaged (its hash differs); {RESTORE}")
        except ArtifactError:
            raise
        except OSError as error:
            raise ArtifactError(f"{path}: cannot be read ({error.strerror}); {RESTORE}") from error

    def _verify_folder(self, path: Path, digest: str) -> None:
        verify_directory(path, RESTORE)
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if _manifest_digest(manifest) != digest:
            raise ArtifactError(f"{path}: its {MANIFEST} is damaged (its hash differs); {RESTORE}")
        if more := set(_members(path)) - manifest.keys():  # an adapter_config.json would change what is loaded
            raise ArtifactError(f"{path}: {min(more)} does not belong to it; remove that file")

    def digests(self) -> set[str]:
        """All artifacts that are there."""
        if not self.root.is_dir():
            return set()
        return {entry.name for entry in self.root.iterdir() if not entry.name.startswith(".")}

    def leftovers(self) -> list[Path]:
        """Drafts of writers that died."""
        return list(self.root.glob(".*")) if self.root.is_dir() else []

    def size(self, digest: str) -> int:
        """Bytes of an artifact; 0 if it is missing."""
        path = self.path(digest)
        members = path.rglob("*") if path.is_dir() else [path]
        return sum(member.stat().st_size for member in members if member.is_file())

    def remove(self, digest: str) -> None:
        """Removes an artifact: it is there whole, or not at all, at every moment."""
        discard(self.path(digest))

    def _is_whole(self, digest: str) -> bool:
        try:
            self.verify(digest)
        except (ArtifactError, OSError, ValueError):
            return False
        return True


def _members(folder: Path) -> list[str]:
    """The files of a folder, without hidden ones and those in hidden folders."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return sorted(name.as_posix() for name in names if not any(part.startswith(".") for part in name.parts))


def _manifest_digest(manifest: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()
