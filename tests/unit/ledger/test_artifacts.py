"""Artifacts: named by what they hold, whole or absent, and damage of a single byte is found."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selftaught.errors import ArtifactError
from selftaught.files import MANIFEST
from selftaught.ledger.artifacts import Artifacts

FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)), "sub/vocabulary.txt": "Wörter".encode()}


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "artifacts")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "model", FILES)


def folder_of(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def entries(artifacts: Artifacts) -> list[str]:
    return sorted(path.name for path in artifacts.root.iterdir())


@settings(max_examples=25, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_text_goes_round_under_its_own_hash(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        artifacts = Artifacts(Path(folder) / "artifacts")
        digest = artifacts.put_text(text)
        assert digest == hashlib.sha256(text.encode()).hexdigest()
        assert artifacts.text(digest) == text
        assert artifacts.put_text(text) == digest
        assert entries(artifacts) == [digest]


def test_a_folder_is_copied_without_hidden_files(artifacts: Artifacts, model: Path) -> None:
    folder_of(model, {".DS_Store": b"x", ".cache/huggingface/model.lock": b"y", "sub/.hidden": b"z"})
    digest = artifacts.put_folder(model)
    kept = contents(artifacts.folder(digest))
    manifest = json.loads(kept.pop(MANIFEST))
    assert kept == FILES
    assert manifest == {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    assert digest == hashlib.sha256(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    assert artifacts.size(digest) == sum(p.stat().st_size for p in (artifacts.root / digest).rglob("*") if p.is_file())


def test_one_content_is_kept_once_wherever_it_comes_from(artifacts: Artifacts, model: Path, tmp_path: Path) -> None:
    digest = artifacts.put_folder(model)
    inode = (artifacts.root / digest).stat().st_ino
    again = folder_of(tmp_path / "elsewhere", dict(reversed(FILES.items())))
    assert artifacts.put_folder(again) == digest
    assert artifacts.put_folder(artifacts.folder(digest)) == digest
    assert (artifacts.root / digest).stat().st_ino == inode, "what is whole is not written again"
    assert artifacts.digests() == {digest}
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in FILES:  # as the hub's cache has it
        (linked / name).parent.mkdir(exist_ok=True)
        (linked / name).symlink_to(model / name)
    assert artifacts.put_folder(linked) == digest


@pytest.mark.parametrize("source", ["empty", "missing"])
def test_no_folder_is_no_artifact(source: str, artifacts: Artifacts, tmp_path: Path) -> None:
    """What is not there must not pass for a model without weights."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="holds no files"):
        artifacts.put_folder(tmp_path / source)
    assert artifacts.digests() == set()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_damage_of_any_one_byte_is_found_and_mended_by_putting_it_again(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        artifacts = Artifacts(Path(temporary) / "artifacts")
        model = folder_of(Path(temporary) / "model", FILES)
        digests = {artifacts.put_folder(model), artifacts.put_text("text")}
        whole = contents(artifacts.root)
        name = data.draw(st.sampled_from(sorted(whole)))
        place = data.draw(st.integers(0, len(whole[name]) - 1))
        changed = bytearray(whole[name])
        changed[place] ^= data.draw(st.integers(1, 255))
        (artifacts.root / name).write_bytes(changed)
        if _same_meaning(name, whole[name], bytes(changed)):
            return
        (hurt,) = [digest for digest in digests if not _is_sound(artifacts, digest)]
        assert name.startswith(hurt)
        with pytest.raises(ArtifactError, match=hurt):
            artifacts.verify(hurt)
        assert digests == {artifacts.put_folder(model), artifacts.put_text("text")}
        assert contents(artifacts.root) == whole


def _same_meaning(name: str, before: bytes, after: bytes) -> bool:
    """Blanks between a manifest's words say nothing."""
    if not name.endswith(MANIFEST):
        return False
    try:
        return bool(json.loads(before) == json.loads(after))
    except ValueError:
        return False


def _is_sound(artifacts: Artifacts, digest: str) -> bool:
    try:
        artifacts.verify(digest)
    except ArtifactError:
        return False
    return True


def missing_member(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def member_too_many(folder: Path) -> None:
    (folder / "adapter_config.json").write_bytes(b"{}")


def no_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def manifest_without_a_member(folder: Path) -> None:
    change_manifest(folder, {"config.json": None})


def manifest_that_tells_another_hash(folder: Path) -> None:
    """The file and its line agree, and yet it is another model."""
    (folder / "config.json").write_bytes(b"[]")
    change_manifest(folder, {"config.json": hashlib.sha256(b"[]").hexdigest()})


def manifest_of_a_file_outside(folder: Path) -> None:
    (folder.parent / "outside").write_bytes(b"{}")
    change_manifest(folder, {"config.json": None, "../outside": hashlib.sha256(b"{}").hexdigest()})


def manifest_that_is_a_list(folder: Path) -> None:
    (folder / MANIFEST).write_text("[]")


def change_manifest(folder: Path, change: dict[str, str | None]) -> None:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8")) | change
    (folder / MANIFEST).write_text(json.dumps({name: digest for name, digest in manifest.items() if digest}))


def a_file_in_its_place(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("hello")


HURTS = [missing_member, member_too_many, no_manifest, manifest_without_a_member, manifest_that_tells_another_hash]
HURTS += [manifest_of_a_file_outside, manifest_that_is_a_list, a_file_in_its_place, shutil.rmtree]


@pytest.mark.parametrize("hurt", HURTS, ids=lambda function: function.__name__)
def test_a_hurt_folder_is_refused_and_mended_by_putting_it_again(hurt: Any, artifacts: Artifacts, model: Path) -> None:
    digest = artifacts.put_folder(model)
    whole = contents(artifacts.root / digest)
    hurt(artifacts.root / digest)
    with pytest.raises(ArtifactError, match=digest):
        artifacts.folder(digest)
    assert artifacts.put_folder(model) == digest
    assert contents(artifacts.folder(digest)) == whole
    assert [name for name in entries(artifacts) if name != "outside"] == [digest]


def test_an_unreadable_file_is_damage(artifacts: Artifacts, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad sector, as the system tells it."""
    digest = artifacts.put_folder(model)
    plain = Path.open

    def failing(self: Path, *args: Any, **options: Any) -> Any:
        if self.name == "model.safetensors":
            raise OSError(5, "Input/output error")
        return plain(self, *args, **options)

    monkeypatch.setattr(Path, "open", failing)
    with pytest.raises(ArtifactError, match="Input/output error"):
        artifacts.verify(digest)


def test_a_source_that_changes_while_it_is_copied_is_not_taken_for_what_it_was(
    artifacts: Artifacts, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = shutil.copyfile

    def changing(source: Path, target: Path) -> object:
        done = plain(source, target)
        if source.name == "config.json":
            (model / "model.safetensors").write_bytes(b"other weights")
        return done

    monkeypatch.setattr(shutil, "copyfile", changing)
    with pytest.raises(ArtifactError):
        artifacts.put_folder(model)
    assert artifacts.digests() == set(), "nothing is left under the name"


def test_a_full_disk_leaves_nothing(artifacts: Artifacts, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for put in (lambda: artifacts.put_folder(model), lambda: artifacts.put_text("text")):
        with pytest.raises(ArtifactError, match=r"No space left on device.*free some space"):
            put()
    assert entries(artifacts) == []


def test_removal_is_all_or_nothing(artifacts: Artifacts, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = artifacts.put_folder(model)
    with monkeypatch.context() as context:
        context.setattr(shutil, "rmtree", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            artifacts.remove(digest)
    assert artifacts.digests() == set()
    (leftover,) = artifacts.leftovers()
    assert digest in leftover.name

    assert artifacts.put_folder(model) == digest  # it comes back, and may go again though its ghost is still there
    artifacts.remove(digest)
    assert artifacts.digests() == set()
    artifacts.remove(digest)  # what is gone may be removed
    assert artifacts.size(digest) == 0


def _interrupt(*args: object, **options: object) -> None:
    raise KeyboardInterrupt


def test_an_empty_or_missing_root_holds_nothing(artifacts: Artifacts) -> None:
    assert artifacts.digests() == set()
    assert artifacts.leftovers() == []
    with pytest.raises(ArtifactError, match="is missing"):
        artifacts.text("0" * 64)
