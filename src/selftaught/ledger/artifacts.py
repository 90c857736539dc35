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
        """
        members = sorted(p for p in source.rglob("*") if p.is_file() and not p.name.startswith("."))
        manifest = {p.relative_to(source).as_posix(): sha256_of(p) for p in members if p.name != MANIFEST}
        digest = _manifest_digest(manifest)
        if self._is_whole(digest):
            return digest
        discard(self.path(digest))
        with whole_directory(self.path(digest)) as draft:
            for name in manifest:
                (draft / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, draft / name)
        self.verify(digest)  # the source may have changed under our hands
        return digest

    def text(self, digest: str) -> str:
        """A kept text.

        Raises:
            ArtifactError: it is missing or damaged.
        """
        self.verify(digest)
        return self.path(digest).read_text(encoding="utf-8")

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
        if path.is_dir():
            verify_directory(path)
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            if _manifest_digest(manifest) != digest:
                raise ArtifactError(f"{path}: its {MANIFEST} is damaged (its hash differs)")
        elif not path.is_file():
            raise ArtifactError(f"{path}: is missing")
        elif sha256_of(path) != digest:
            raise ArtifactError(f"{path}: is damaged (its hash differs)")

    def digests(self) -> set[str]:
        """All artifacts that are there."""
        if not self.root.is_dir():
            return set()
        return {entry.name for entry in self.root.iterdir() if not entry.name.startswith(".")}

    def leftovers(self) -> list[Path]:
        """Drafts of writers that died."""
        return [entry for entry in self.root.glob(".*")] if self.root.is_dir() else []

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


def _manifest_digest(manifest: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()

