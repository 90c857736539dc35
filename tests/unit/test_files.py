"""Files whole or not at all, under failures at every moment."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from selftaught import files
from selftaught.errors import ArtifactError
from selftaught.files import (
    MANIFEST,
    read_json,
    recover_directory,
    sha256_of,
    verify_directory,
    whole_directory,
    write_json,
    write_lines,
    write_text,
)


class DiskError(OSError):
    """A full disk, of our making."""

    def __init__(self) -> None:
        super().__init__(28, "No space left on device")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fail_replace(monkeypatch: pytest.MonkeyPatch, error: BaseException, call: int = 1) -> None:
    """Makes the given call of `Path.replace` fail, and only that one."""
    plain, calls = Path.replace, [0]

    def replace(self: Path, target: Any) -> Path:
        calls[0] += 1
        if calls[0] == call:
            raise error
        return plain(self, target)

    monkeypatch.setattr(Path, "replace", replace)


ERRORS = [DiskError(), KeyboardInterrupt(), RuntimeError("bug")]


def expected(error: BaseException) -> type[BaseException]:
    return ArtifactError if isinstance(error, OSError) else type(error)


# --------------------------------------------------------------------------------------------- a file


def test_text_goes_round_and_is_readable_by_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "note.txt"
    write_text(path, "Grüße\n")
    assert path.read_text(encoding="utf-8") == "Grüße\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    write_text(path, "again")
    assert path.read_text(encoding="utf-8") == "again"
    assert names(path.parent) == ["note.txt"]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("moment", ["rename", "sync"])
def test_a_failed_write_leaves_the_old_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, moment: str
) -> None:
    path = tmp_path / "note.txt"
    write_text(path, "old")
    if moment == "rename":
        fail_replace(monkeypatch, error)
    else:

        def fsync(_handle: int) -> None:
            raise error

        monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(expected(error)):
        write_text(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["note.txt"]


def test_lines_are_written_as_they_come_and_appear_together(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "lines.txt"

    def lines() -> Iterator[str]:
        for number in range(3):
            assert not path.exists()
            yield f"Zeile {number} ü\n"

    write_lines(path, lines())
    assert path.read_text(encoding="utf-8") == "Zeile 0 ü\nZeile 1 ü\nZeile 2 ü\n"
    assert names(path.parent) == ["lines.txt"]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_what_the_source_of_lines_raises_passes_through_and_leaves_the_old_text(
    tmp_path: Path, error: BaseException
) -> None:
    write_text(tmp_path / "lines.txt", "old")

    def lines() -> Iterator[str]:
        yield "new\n"
        raise error

    with pytest.raises(type(error)) as caught:
        write_lines(tmp_path / "lines.txt", lines())
    assert caught.value is error
    assert (tmp_path / "lines.txt").read_text() == "old"
    assert names(tmp_path) == ["lines.txt"]


def test_lines_that_cannot_be_written_are_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match=r"file/lines.txt: cannot be written \(.*\); free some space"):
        write_lines(tmp_path / "file" / "lines.txt", ["x\n"])


def test_text_that_cannot_be_encoded_leaves_the_old_text(tmp_path: Path) -> None:
    write_text(tmp_path / "note.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "note.txt", "\ud800")
    assert (tmp_path / "note.txt").read_text() == "old"
    assert names(tmp_path) == ["note.txt"]


def test_a_place_that_cannot_be_written_is_one_readable_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match=r"file/note.txt: cannot be written \(.*\); free some space"):
        write_text(tmp_path / "file" / "note.txt", "x")


def test_json_goes_round_and_refuses_what_json_lacks(tmp_path: Path) -> None:
    value = {"ü": [1, 2.5, None, True], "b": {"c": "d"}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert read_json(tmp_path / "a.json") == value


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe"])
def test_damaged_json_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"a\.json"):
        read_json(tmp_path / "a.json")


# ------------------------------------------------------------------------------------------ a directory


def make(path: Path, text: str) -> None:
    with whole_directory(path) as draft:
        (draft / "a.txt").write_text(text)
        (draft / "sub").mkdir()
        (draft / "sub" / "b.txt").write_text(text * 2)


def content(path: Path) -> tuple[str, str]:
    return (path / "a.txt").read_text(), (path / "sub" / "b.txt").read_text()


def test_a_directory_appears_whole_and_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run"
    with whole_directory(path) as draft:
        (draft / "only-at-first.txt").write_text("x")
        assert not path.exists()
    make(path, "new")
    assert content(path) == ("new", "newnew")
    assert names(path) == ["a.txt", MANIFEST, "sub"]
    assert names(path.parent) == ["run"]
    assert read_json(path / MANIFEST) == {
        "a.txt": sha256_of(path / "a.txt"),
        os.path.join("sub", "b.txt"): sha256_of(path / "sub" / "b.txt"),  # noqa: PTH118
    }
    verify_directory(path)


@pytest.mark.parametrize("before", [True, False], ids=["replacing", "new"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_an_error_in_the_block_changes_nothing(tmp_path: Path, error: BaseException, before: bool) -> None:
    path = tmp_path / "run"
    if before:
        make(path, "old")
    with pytest.raises(expected(error)), whole_directory(path) as draft:
        (draft / "a.txt").write_text("new")
        raise error
    assert names(tmp_path) == (["run"] if before else [])
    if before:
        assert content(path) == ("old", "oldold")
        verify_directory(path)


@pytest.mark.parametrize("call", [1, 2, 3])  # the manifest, the old one aside, the new one in place
@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_a_failed_rename_brings_the_old_one_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, call: int
) -> None:
    path = tmp_path / "run"
    make(path, "old")
    fail_replace(monkeypatch, error, call)
    with pytest.raises(expected(error)):
        make(path, "new")
    monkeypatch.undo()
    assert names(tmp_path) == ["run"]
    assert content(path) == ("old", "oldold")
    verify_directory(path)
    make(path, "new")
    assert content(path) == ("new", "newnew")


def test_a_process_that_dies_between_the_renames_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run"
    make(path, "old")
    dies = (
        "import os, sys; from pathlib import Path; from selftaught.files import whole_directory\n"
        "path, plain = Path(sys.argv[1]), Path.replace\n"
        "Path.replace = lambda self, target: os._exit(9) if Path(target) == path else plain(self, target)\n"
        "with whole_directory(path) as draft:\n"
        "    (draft / 'a.txt').write_text('new')\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    died = subprocess.run([sys.executable, "-c", dies, path], env=environment, check=False)
    assert died.returncode == 9
    assert not path.exists()
    recover_directory(path)
    assert names(tmp_path) == ["run"]
    assert content(path) == ("old", "oldold")
    verify_directory(path)


def test_recovery_prefers_what_is_in_place(tmp_path: Path) -> None:
    path = tmp_path / "run"
    make(path, "new")
    make(tmp_path / ".run.old", "old")  # died before the old one was removed
    (tmp_path / ".run.abc.tmp").mkdir()  # and another died while writing
    recover_directory(path)
    assert names(tmp_path) == ["run"]
    assert content(path) == ("new", "newnew")
    recover_directory(path)
    assert content(path) == ("new", "newnew")


def test_recovery_touches_nothing_else(tmp_path: Path) -> None:
    for other in ("runs", "run.tmp", ".running.tmp", ".other.x.tmp"):
        make(tmp_path / other, "mine")
    before = names(tmp_path)
    recover_directory(tmp_path / "run")
    assert names(tmp_path) == before


@pytest.mark.parametrize("name", ["run[1]", "a*b"])
def test_names_with_glob_characters_are_plain_names(tmp_path: Path, name: str) -> None:
    (tmp_path / ".axxb.1.tmp").mkdir()
    (tmp_path / f".{name}.1.tmp").mkdir()
    recover_directory(tmp_path / name)
    assert names(tmp_path) == [".axxb.1.tmp"]


@pytest.mark.parametrize("victim", ["a.txt", "sub/b.txt"])
def test_verification_finds_changed_and_missing_files(tmp_path: Path, victim: str) -> None:
    path = tmp_path / "run"
    make(path, "x")
    verify_directory(path)
    (path / victim).write_text("y")
    with pytest.raises(ArtifactError, match=f"{victim} is damaged"):
        verify_directory(path)
    (path / victim).unlink()
    with pytest.raises(ArtifactError, match=f"{victim} is missing"):
        verify_directory(path)


@pytest.mark.parametrize("manifest", [None, "", "{", "[]", "null", "7"])
def test_a_folder_without_a_usable_manifest_is_damaged(tmp_path: Path, manifest: str | None) -> None:
    path = tmp_path / "run"
    make(path, "x")
    (path / MANIFEST).unlink()
    if manifest is not None:
        (path / MANIFEST).write_text(manifest)
    with pytest.raises(ArtifactError):
        verify_directory(path)


def test_hashes_are_sha256(tmp_path: Path) -> None:
    import hashlib

    data = bytes(range(256)) * 9000  # more than one block
    (tmp_path / "f").write_bytes(data)
    assert sha256_of(tmp_path / "f") == hashlib.sha256(data).hexdigest()
    assert json.loads(json.dumps(files.MANIFEST)) == "manifest.json"


def test_a_lock_keeps_another_process_out_and_dies_with_its_own(tmp_path: Path) -> None:
    hold = "import sys; from pathlib import Path; from selftaught.files import locked\nwith locked(Path(sys.argv[1])): "
    with files.locked(tmp_path):
        other = subprocess.run(
            [sys.executable, "-c", hold + "print('in')", str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert "another process is at work" in other.stderr and not other.stdout
    killed = subprocess.run([sys.executable, "-c", hold + "import os; os._exit(9)", str(tmp_path)], check=False)
    assert killed.returncode == 9
    with files.locked(tmp_path):
        pass


def test_the_draft_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    living, dead = tmp_path / f".m.{os.getppid()}.abc.tmp", tmp_path / ".m.999999999.abc.tmp"
    living.mkdir()
    dead.mkdir()
    files.recover_directory(tmp_path / "m")
    assert living.exists() and not dead.exists()
