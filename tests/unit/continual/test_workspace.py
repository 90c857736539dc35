"""A workspace: made, looked at, rolled back, swept, checked and exported; lessons are made up."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import made_up
import pytest
from made_up import make, public_folder, read_only, table_rows, teach

from selftaught.continual import views
from selftaught.continual.verdict import promote
from selftaught.continual.workspace import Workspace
from selftaught.errors import ArtifactError, ConfigError, SelftaughtError
from selftaught.files import MANIFEST, locked, whole_directory
from selftaught.ledger.artifacts import Artifacts
from selftaught.ledger.store import Ledger


@pytest.fixture(autouse=True)
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    made_up.install(monkeypatch.setattr)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as context:
        made_up.install(context.setattr)
        workspace = make(folder / "work", "a", "b")
        found = [teach(workspace, skill, seed).status for skill, seed in (("a", 1), ("b", 2), ("b", 3), ("a", 4))]
        assert found == ["promoted", "rejected", "promoted", "rejected"]
        workspace.ledger.close()
    return folder


@pytest.fixture
def workspace(template: Path, tmp_path: Path) -> Workspace:
    """v1, promoted; v2, rejected; v3, promoted and HEAD; v4, rejected."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    return Workspace(tmp_path / "work")


def weights(workspace: Workspace) -> set[str]:
    """The versions whose weights are there."""
    there = workspace.artifacts.digests()
    return {version.name for version in workspace.ledger.versions() if version.model_artifact in there}


def statuses(workspace: Workspace) -> list[str]:
    return [workspace.ledger.status(version) for version in workspace.ledger.versions()]


def snapshot(root: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """All that a workspace holds: records, and files but for the ledger's own."""
    files = (path for path in root.rglob("*") if path.is_file() and not path.name.startswith(("ledger.db", ".lock")))
    return table_rows(root), {str(path.relative_to(root)): path.read_bytes() for path in files}


# -------------------------------------------------------------------------------------------- making


def test_a_workspace_is_found_from_inside_and_not_from_beside(tmp_path: Path) -> None:
    workspace = make(tmp_path / "work")
    inside = tmp_path / "work" / "deep" / "er"
    inside.mkdir(parents=True)
    for start in (tmp_path / "work", inside):
        assert Workspace.find(start) == tmp_path / "work"
        assert Workspace.open(start).ledger.head() == workspace.ledger.head()
    assert Workspace.find(tmp_path) is None
    with pytest.raises(ConfigError, match=r"not in a workspace .*; make one with selftaught init"):
        Workspace.open(tmp_path)


def test_a_new_workspace_holds_the_base(tmp_path: Path) -> None:
    workspace = make(tmp_path / "work")
    head = workspace.ledger.head()
    assert (head.name, workspace.ledger.status(head), weights(workspace)) == ("v0", "base", {"v0"})
    folder = workspace.model_folder(head)
    for path in (tmp_path / "base").rglob("*.*"):
        assert (folder / path.relative_to(tmp_path / "base")).read_bytes() == path.read_bytes()
    assert workspace.check() == []


def test_made_again_it_is_refused_and_stays_as_it_is(workspace: Workspace) -> None:
    before = snapshot(workspace.root)
    with pytest.raises(ConfigError, match="is a workspace already; selftaught log shows what it holds"):
        Workspace.create(workspace.root, str(workspace.root.with_name("base")))
    assert snapshot(workspace.root) == before


STEPS = {
    "configuration": (Artifacts, "put_folder"),
    "artifact": (Ledger, "add_base"),
}


@pytest.mark.parametrize("step", STEPS)
def test_interrupted_while_it_is_made_it_is_finished_by_the_same_command(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = made_up.base_model(tmp_path / "base")
    with monkeypatch.context() as context:
        context.setattr(*STEPS[step], _interrupt)
        with pytest.raises(KeyboardInterrupt):
            Workspace.create(tmp_path / "work", str(base))
    with pytest.raises(ArtifactError, match=r"selftaught init"):
        Workspace.open(tmp_path / "work").ledger.head()
    workspace = Workspace.create(tmp_path / "work", str(base))
    assert workspace.ledger.head().name == "v0"
    assert workspace.check() == []


def test_settings_that_are_there_already_are_not_written_over(tmp_path: Path) -> None:
    base, root = made_up.base_model(tmp_path / "base"), tmp_path / "work"
    root.mkdir()
    mine = f'model = "{base}"\n[gate]\ntolerance = 0.2 # mine\n'
    (root / "selftaught.toml").write_text(mine, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"selftaught.toml: is there already, and names the model .*; remove it"):
        Workspace.create(root, str(made_up.base_model(tmp_path / "other")))
    assert Workspace.create(root, str(base)).config.gate.tolerance == 0.2
    assert (root / "selftaught.toml").read_text(encoding="utf-8") == mine


def _interrupt(*args: object, **options: object) -> None:
    raise KeyboardInterrupt


def test_who_writes_keeps_other_writers_out_and_no_reader(workspace: Workspace) -> None:
    with locked(workspace.root / ".selftaught"):
        other = Workspace.open(workspace.root)
        writers = [
            lambda: other.roll_back("v0", ""),
            other.collect,
            lambda: teach(other, "a", 1),
            lambda: promote(other, "v4", ["a"], "because"),
            lambda: Workspace.create(other.root, str(other.root.with_name("base"))),
        ]
        for write in writers:
            with pytest.raises(ArtifactError, match="another process is at work in it; wait"):
                write()
        assert views.log(other)["head"] == "v3"
        assert other.check() == []


# ----------------------------------------------------------------------------------------- rolling back


def test_rolled_back_everything_is_still_there(workspace: Workspace) -> None:
    there = workspace.artifacts.digests()
    gone = workspace.roll_back("v0", "too early")
    assert [version.name for version in gone] == ["v3", "v1"]
    assert workspace.ledger.head().name == "v0"
    assert statuses(workspace) == ["base", "rolled back", "rejected", "rolled back", "rejected"]
    assert workspace.artifacts.digests() == there
    assert teach(workspace, "a", 1).version.name == "v5", "and it can learn from there"


@pytest.mark.parametrize("name", ["v3", "v2", "v4", "v9"])
def test_rolled_back_only_along_the_line(name: str, workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match=f"{name}: "):
        workspace.roll_back(name, "")
    assert workspace.ledger.head().name == "v3"


def test_rolled_back_only_to_whole_weights(workspace: Workspace) -> None:
    hurt(workspace, workspace.ledger.version("v1").model_artifact)
    with pytest.raises(ArtifactError, match=r"v1: its weights cannot be used: .*backup"):
        workspace.roll_back("v1", "")
    assert workspace.ledger.head().name == "v3"
    workspace.roll_back("v0", "")


def hurt(workspace: Workspace, digest: str) -> Path:
    """Flips a bit of an artifact."""
    path = workspace.artifacts.path(digest)
    path = path / "model.safetensors" if path.is_dir() else path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path


# --------------------------------------------------------------------------------------------- sweeping


def test_swept_are_the_weights_that_are_not_in_force(workspace: Workspace) -> None:
    orphan = workspace.artifacts.put_text("of a skill that was never registered")
    (workspace.artifacts.root / ".draft.tmp").mkdir()
    before, there = table_rows(workspace.root), workspace.artifacts.digests()

    gone, size = workspace.collect(dry_run=True)
    assert ([one.name for one in gone], workspace.artifacts.digests()) == (["v2", "v4"], there)
    assert table_rows(workspace.root) == before
    freed = [*[one.model_artifact for one in gone], orphan]
    assert size == sum(map(workspace.artifacts.size, freed)) > 0

    assert workspace.collect() == (gone, size)
    assert workspace.artifacts.digests() == there - set(freed)
    assert workspace.artifacts.leftovers() == []
    after = table_rows(workspace.root)
    added = after["events"][len(before["events"]) :]
    assert after | {"events": before["events"]} == before
    assert [(kind, version, head) for _, kind, version, head, _ in added] == [
        ("collected", 2, None),
        ("collected", 4, None),
    ]
    assert workspace.check() == []
    assert views.difference(workspace, "v1", "v2")["suites"], "answers are kept"
    assert workspace.collect() == ([], 0)
    with pytest.raises(ArtifactError, match="v2: its weights were removed by selftaught gc; teach the skill again"):
        promote(workspace, "v2", ["a", "b"], "because")


def test_held_versions_are_kept_while_they_can_be_promoted_and_so_are_as_many_others_as_wanted(tmp_path: Path) -> None:
    workspace = make(tmp_path / "work", "a", "b")
    assert teach(workspace, "a", 4).status == "inconclusive"
    assert teach(workspace, "a", 1).status == "promoted"
    assert teach(workspace, "b", 5).status == "inconclusive"
    assert [version.name for version in workspace.collect()[0]] == ["v1"], "HEAD is its parent no longer"
    assert weights(workspace) == {"v0", "v2", "v3"}
    assert teach(workspace, "b", 3).status == "promoted"
    assert [version.name for version in workspace.collect(keep=1)[0]] == ["v2", "v3"]
    assert weights(workspace) == {"v0", "v4"}, "HEAD and the base"
    with pytest.raises(ArtifactError, match="v2: its weights were removed"):
        workspace.roll_back("v2", "")
    assert workspace.check() == []


def test_weights_that_two_versions_share_stay_as_long_as_one_needs_them(tmp_path: Path) -> None:
    workspace = make(tmp_path / "work", "a", "b")
    assert teach(workspace, "a", 4).status == "inconclusive"
    made_up.configured(workspace.root, 'on_inconclusive = "reject"\n')
    workspace = Workspace(workspace.root)
    twin = teach(workspace, "a", 4)
    assert twin.status == "rejected"
    assert twin.version.model_artifact == workspace.ledger.version("v1").model_artifact
    assert [version.name for version in workspace.collect()[0]] == ["v2"]
    workspace.model_folder(workspace.ledger.version("v1"))
    with pytest.raises(ArtifactError, match="removed"):
        promote(workspace, "v2", ["a"], "what was given up must not become HEAD")
    assert workspace.check() == []


@pytest.mark.parametrize("place", [(Ledger, "collected"), (Artifacts, "remove"), (shutil, "rmtree")])
def test_interrupted_while_it_sweeps_nothing_is_lost(
    place: tuple[Any, str], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as context:
        context.setattr(*place, _interrupt)
        with pytest.raises(KeyboardInterrupt):
            workspace.collect()
    again = Workspace(workspace.root)
    assert again.check() == []
    assert {"v0", "v1", "v3"} <= weights(again)
    again.collect()
    assert weights(again) == {"v0", "v1", "v3"}
    assert again.artifacts.leftovers() == []
    assert again.artifacts.digests() == again.ledger.artifacts()


def test_swept_are_the_left_overs_of_lessons_and_no_lesson_under_way(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as context:
        context.setattr("selftaught.continual.lesson._record", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            teach(workspace, "b", 5)
    (lesson,) = workspace.runs.iterdir()
    (workspace.runs / ".x.discarded").mkdir()
    workspace.collect()
    assert list(workspace.runs.iterdir()) == [lesson]
    workspace.roll_back("v1", "")
    workspace.collect()
    assert list(workspace.runs.iterdir()) == [], "nobody can go on with it"


# --------------------------------------------------------------------------------------------- checking


def test_every_damage_is_found_and_named(workspace: Workspace) -> None:
    ledger = workspace.ledger
    head, held = ledger.version("v3"), ledger.version("v4")
    answers = ledger.evaluations(head)[1]
    hurt(workspace, ledger.skill("a").rows_artifact)
    hurt(workspace, answers.results_artifact)
    hurt(workspace, head.model_artifact)
    shutil.rmtree(workspace.artifacts.path(held.model_artifact))
    problems = workspace.check()
    assert len(problems) == 4
    for words in (
        "is damaged (its hash differs); restore it from a backup (it holds the rows of a)",
        "is damaged (its hash differs); restore it from a backup (it holds v3's answers to b)",
        "model.safetensors is damaged (its hash differs); restore it from a backup (it holds the weights of v3)",
        "is missing; restore it from a backup (it holds the weights of v4)",
    ):
        assert sum(words in problem for problem in problems) == 1, problems


def test_an_adapter_is_checked_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = make(tmp_path / "work", "a")
    version = with_adapter(workspace, monkeypatch)
    assert workspace.check() == []
    (workspace.artifacts.path(version.adapter_artifact or "") / "adapter_config.json").unlink()
    (problem,) = workspace.check()
    assert "adapter_config.json is missing" in problem
    assert "it holds the adapter of v1" in problem


def with_adapter(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, skill: str = "a", seed: int = 1) -> Any:
    """A lesson that leaves an adapter too, on the model that it was taught from."""
    plain = made_up.run_jobs

    def run_jobs(jobs: Any, watch: Any, processes: int) -> Any:
        records = plain(jobs, watch, processes)
        for job, folder in jobs:
            if job.config is not None:
                with whole_directory(folder / "adapter") as adapter:
                    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": job.model}))
        return records

    with monkeypatch.context() as context:
        context.setattr("selftaught.continual.lesson.run_jobs", run_jobs)
        return teach(workspace, skill, seed).version


def test_a_damaged_table_is_found(workspace: Workspace) -> None:
    path = workspace.ledger.path
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO events (created, kind, version, reason) VALUES ('', 'rejected', 77, '')")
    connection.close()
    assert any("names a missing versions" in problem for problem in Workspace(workspace.root).check())


def test_a_sweep_beside_a_check_is_no_damage(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, swept = Artifacts.verify, []

    def verify(self: Artifacts, digest: str) -> None:
        if not swept:
            swept.append(Workspace(workspace.root).collect())
        plain(self, digest)

    monkeypatch.setattr(Artifacts, "verify", verify)
    assert workspace.check() == []
    assert swept


def test_on_a_disk_for_reading_all_can_be_seen_and_nothing_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    with public_folder() as folder:
        workspace = make(folder / "work", "a")
        teach(workspace, "a", 1)
        workspace.ledger.close()
        everything = [folder / "work", *[path for path in (folder / "work").rglob("*") if path.is_dir()]]
        with read_only(*everything):
            reader = Workspace.open(folder / "work")
            assert views.log(reader)["head"] == "v1"
            assert views.shown(reader, "HEAD")["version"] == "v1"
            assert views.difference(reader, "v0", "v1")["suites"]
            assert reader.check() == []
            for write in (reader.collect, lambda: reader.roll_back("v0", ""), lambda: teach(reader, "a", 1)):
                with pytest.raises(SelftaughtError, match="cannot be written"):
                    write()
            reader.ledger.close()


# -------------------------------------------------------------------------------------------- exporting


def test_an_export_is_the_weights_and_never_written_over(workspace: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    assert workspace.export("HEAD", out).name == "v3"
    folder = workspace.model_folder(workspace.ledger.head())
    for path in folder.rglob("*"):
        assert path.is_dir() or (out / path.relative_to(folder)).read_bytes() == path.read_bytes()
    with pytest.raises(ArtifactError, match="is there already; choose another place"):
        workspace.export("v0", out)
    with pytest.raises(ConfigError, match="v3: was taught with full weights; export it without --adapter"):
        workspace.export("v3", tmp_path / "adapter", adapter=True)
    hurt(workspace, workspace.ledger.head().model_artifact)
    with pytest.raises(ArtifactError, match="v3: its weights cannot be used"):
        workspace.export("v3", tmp_path / "damaged")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "deep", "work"]


def test_an_adapter_names_the_model_below_it_wherever_the_workspace_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = make(tmp_path / "work", "a", "b")
    with_adapter(workspace, monkeypatch)
    with_adapter(workspace, monkeypatch, "b", 3)
    workspace.ledger.close()
    shutil.move(tmp_path / "work", tmp_path / "moved")
    workspace = Workspace(tmp_path / "moved")
    found = {}
    for name in ("v1", "v2"):
        workspace.export(name, tmp_path / name, adapter=True)
        config = json.loads((tmp_path / name / "adapter_config.json").read_text(encoding="utf-8"))
        found[name] = config["base_model_name_or_path"]
        assert json.loads((tmp_path / name / MANIFEST).read_text(encoding="utf-8"))
    for name, parent in (("v1", "v0"), ("v2", "v1")):
        assert Path(found[name]) == workspace.model_folder(workspace.ledger.version(parent))


# ----------------------------------------------------------------------------------------------- views


def test_the_log_is_what_happened(workspace: Workspace) -> None:
    workspace.collect()
    found = views.log(workspace)
    assert (found["head"], found["skills"]) == ("v3", ["a", "b"])
    rows = found["versions"]
    assert [row["version"] for row in rows] == ["v4", "v3", "v2", "v1", "v0"]
    assert [row["parent"] for row in rows] == ["v3", "v1", "v1", "v0", None]
    assert [row["status"] for row in rows] == ["rejected", "promoted", "rejected", "promoted", "base"]
    assert [row["weights"] for row in rows] == [False, True, False, True, True]
    assert rows[1]["accuracy"] == {"a": 30 / 40, "b": 25 / 40}
    assert rows[-1]["accuracy"] == {"a": 0.0, "b": 0.0}
    json.dumps(found)


def test_one_version_is_shown_with_all_that_is_known(workspace: Workspace) -> None:
    found = views.shown(workspace, "head")
    assert (found["version"], found["is_head"], found["lineage"]) == ("v3", True, ["v3", "v1", "v0"])
    assert found["scores"]["a"]["value"] == 30 / 40
    assert found["verdict"]["outcome"] == found["status"] == "promoted"
    assert [event["kind"] for event in found["events"]] == ["promoted"]
    assert views.shown(workspace, "0")["verdict"] is None
    json.dumps(found, default=str)


def test_a_difference_is_every_item_that_flipped(workspace: Workspace) -> None:
    found = views.difference(workspace, "v3", "v2")
    a, b = found["suites"]
    assert (found["before"], found["after"]) == ("v3", "v2")
    assert (a["suite"], a["gained"], a["lost"]) == ("a", 0, 28)
    assert (b["suite"], b["gained"], b["lost"]) == ("b", 5, 0)
    assert [flip["id"] for flip in b["flips"]] == [f"b-test-{n}" for n in range(25, 30)]
    assert a["flips"][0]["question"] == "And a2?"
    assert "\u2028" in a["flips"][0]["before"]
    assert all(not suite["flips"] for suite in views.difference(workspace, "v1", "v1")["suites"])
    with pytest.raises(ConfigError, match="no such version"):
        views.difference(workspace, "v1", "v9")


def test_versions_without_a_common_suite_cannot_be_compared(tmp_path: Path) -> None:
    workspace = make(tmp_path / "work", "a")
    with pytest.raises(ConfigError, match="v0 and v0 have been asked nothing in common"):
        views.difference(workspace, "v0", "v0")
    teach(workspace, "a", 1)
    made_up.registry.add_skill(workspace, "b", made_up.rows("b"), "b.jsonl")
    teach(workspace, "b", 3)
    assert [suite["suite"] for suite in views.difference(workspace, "v0", "v2")["suites"]] == ["a"]
