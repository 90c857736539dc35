"""A lesson's record, the decision, promotion by name, and what an interruption leaves; answers are made up."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import made_up
import pytest
from made_up import configured, make, table_rows, teach

from selftaught.continual import lesson
from selftaught.continual.verdict import check_override, decide, promote
from selftaught.continual.workspace import Workspace
from selftaught.errors import ArtifactError, ConfigError
from selftaught.files import discard


@pytest.fixture(autouse=True)
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    made_up.install(monkeypatch.setattr)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as context:
        made_up.install(context.setattr)
        make(folder / "work", "a", "b").ledger.close()
    return folder


@pytest.fixture
def workspace(template: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    return Workspace(tmp_path / "work")


def head(workspace: Workspace) -> str:
    return workspace.ledger.head().name


# --------------------------------------------------------------------------------------- the decision


def verdict(**outcomes: str) -> dict[str, Any]:
    bad = {"regressed", "unimproved"} & set(outcomes.values())
    outcome = "rejected" if bad else "inconclusive" if "undecided" in outcomes.values() else "promoted"
    checks = [{"name": name, "outcome": value} for name, value in outcomes.items()]
    return {"outcome": outcome, "sentence": f"{outcome}: …", "checks": checks}


GOOD, LOST = verdict(new="improved", old="kept"), verdict(new="improved", old="regressed")
OPEN, BOTH = verdict(new="undecided", old="kept"), verdict(new="unimproved", old="undecided")
DECISIONS = [
    (GOOD, "hold", [], "promoted"),
    (GOOD, "reject", ["old"], "promoted"),
    (LOST, "promote", [], "rejected"),
    (LOST, "hold", ["old"], "promoted"),
    (LOST, "hold", ["new"], "rejected"),
    (OPEN, "hold", [], "inconclusive"),
    (OPEN, "promote", [], "promoted"),
    (OPEN, "reject", [], "rejected"),
    (OPEN, "reject", ["new"], "promoted"),
    (BOTH, "hold", ["new"], "inconclusive"),
    (BOTH, "promote", ["new"], "promoted"),
    (BOTH, "reject", ["new"], "rejected"),
    (BOTH, "promote", ["old"], "rejected"),
    (BOTH, "hold", ["old", "new"], "promoted"),
]


@pytest.mark.parametrize(("said", "policy", "override", "status"), DECISIONS)
def test_what_becomes_of_a_version(said: dict[str, Any], policy: str, override: list[str], status: str) -> None:
    found, why = decide(said, policy, override, "I say so")
    assert found == status
    assert said["sentence"] in why
    if override and status == "promoted" and said is not GOOD:
        assert f"overridden for {', '.join(sorted(override))}: I say so; the gate said" in why


def test_an_override_and_its_reason_come_together(workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match="--override: give a --reason too"):
        check_override(["a"], " ")
    with pytest.raises(ConfigError, match="--reason: name what it excuses with --override"):
        check_override([], "because")
    with pytest.raises(ConfigError, match="--override: c is no skill or probe family; known are a, b"):
        teach(workspace, "a", 1, override=["c"], reason="because")
    assert not workspace.runs.exists(), "before any work"


@pytest.mark.parametrize(
    ("policy", "status"), [("hold", "inconclusive"), ("promote", "promoted"), ("reject", "rejected")]
)
def test_what_the_gate_cannot_tell_goes_by_the_workspace(policy: str, status: str, workspace: Workspace) -> None:
    configured(workspace.root, f'on_inconclusive = "{policy}"\n')
    found = teach(Workspace(workspace.root), "a", 4)
    assert found.status == workspace.ledger.status(found.version) == status
    assert found.verdict["outcome"] == "inconclusive", "what the gate said stays what it said"
    assert found.verdict["policy"]["on_inconclusive"] == policy
    assert head(workspace) == ("v1" if status == "promoted" else "v0")


# --------------------------------------------------------------------------------------------- a lesson


def test_a_lesson_is_recorded_with_all_that_it_came_to(workspace: Workspace) -> None:
    found = teach(workspace, "a", 1)
    version = workspace.ledger.version("v1")
    assert found.version == version == workspace.ledger.head()
    assert (version.parent, version.skill, version.method, version.seed) == (0, "a", "sdft", 1)
    assert version.config is not None
    assert version.config["seed"] == 1
    assert version.data_hash == workspace.ledger.skill("a").data_hash
    weights = (workspace.model_folder(version) / "model.safetensors").read_text(encoding="utf-8")
    assert weights == f"{workspace.ledger.version('v0').model_artifact}, then seed 1"
    for number, right in ((0, made_up.BASE), (1, made_up.SCORES[1])):
        evaluations = workspace.ledger.evaluations(workspace.ledger.version(str(number)))
        assert {one.suite: one.correct for one in evaluations} == right
        for one in evaluations:
            answers = workspace.results(one)
            assert (sum(answer["correct"] for answer in answers), len(answers)) == (one.correct, one.total)
    assert [check["name"] for check in found.verdict["checks"]] == ["a"], "b was never taught: nothing to keep"
    assert list(workspace.runs.iterdir()) == []
    assert workspace.check() == []


def test_a_skill_that_was_learnt_is_to_be_kept(workspace: Workspace) -> None:
    teach(workspace, "a", 1)
    found = teach(workspace, "b", 2)
    assert [(check["name"], check["kind"], check["outcome"]) for check in found.verdict["checks"]] == [
        ("a", "skill", "regressed"),
        ("b", "new", "improved"),
    ]
    assert (found.status, head(workspace)) == ("rejected", "v1")
    excused = teach(workspace, "b", 2, override=["a"], reason="b matters more")
    assert (excused.status, head(workspace)) == ("promoted", "v3")
    assert "b matters more" in workspace.ledger.events()[-1].reason


def test_an_unknown_skill_is_told_with_the_known_ones(workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match=r"c: no such skill here \(registered: a, b\)"):
        teach(workspace, "c", 1)


def test_head_is_asked_only_what_it_was_not_asked(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []
    plain = made_up.run_jobs

    def run_jobs(jobs: Any, watch: Any, processes: int) -> Any:
        asked.extend(tuple(suite.name for suite in job.suites or ()) for job, _ in jobs if job.name == "head")
        return plain(jobs, watch, processes)

    monkeypatch.setattr(lesson, "run_jobs", run_jobs)
    teach(workspace, "a", 4)
    teach(workspace, "a", 4)
    made_up.registry.add_skill(workspace, "c", made_up.rows("c"), "c.jsonl")
    teach(workspace, "a", 4)
    assert asked == [("a", "b"), (), ("c",)]


# ---------------------------------------------------------------------------------- promotion by name


def test_promoted_by_name(workspace: Workspace) -> None:
    teach(workspace, "a", 1)
    teach(workspace, "b", 2)
    for override in (["b"], []):
        with pytest.raises(ConfigError, match=r"v2: did not pass a \(.*\); name each that you excuse with --override"):
            promote(workspace, "v2", override, "because" if override else "")
    assert head(workspace) == "v1"
    assert promote(workspace, "v2", ["a"], "because").name == head(workspace) == "v2"
    assert workspace.ledger.status(workspace.ledger.version("v2")) == "promoted"
    assert "because" in workspace.ledger.events()[-1].reason
    for name, state in (("v2", "promoted"), ("v0", "the base")):
        with pytest.raises(ConfigError, match=f"{name}: is {state}, so there is nothing to promote"):
            promote(workspace, name, ["a"], "because")


def test_not_promoted_by_name(workspace: Workspace) -> None:
    """When HEAD has moved on, and when its weights are hurt."""
    teach(workspace, "a", 4)
    assert teach(workspace, "a", 1).status == "promoted"
    with pytest.raises(ConfigError, match="HEAD is v2 now, and this was taught from v0"):
        promote(workspace, "v1", ["a"], "because")
    workspace.roll_back("v0", "")
    (workspace.model_folder(workspace.ledger.version("v1")) / "model.safetensors").unlink()
    with pytest.raises(ArtifactError, match="v1: its weights cannot be used"):
        promote(workspace, "v1", ["a"], "because")
    assert head(workspace) == "v0"


def test_what_was_rolled_back_may_come_again(workspace: Workspace) -> None:
    """In the order in which it was taught, and without the gate being asked twice."""
    teach(workspace, "a", 1)
    teach(workspace, "b", 3)
    workspace.roll_back("v0", "")
    with pytest.raises(ConfigError, match="HEAD is v0 now, and this was taught from v1"):
        promote(workspace, "v2", [], "")
    for name in ("v1", "v2"):
        promote(workspace, name, [], "")
        assert head(workspace) == name
        assert workspace.ledger.status(workspace.ledger.version(name)) == "promoted"
    assert "rolled back" in workspace.ledger.events()[-1].reason


# ---------------------------------------------------------------------------------------- interruptions

MOMENTS = [(1, name) for name in ("_run_folder", "_check_head", "_taught", "_judged", "_record", "discard")]


@pytest.mark.parametrize(("seed", "moment"), [*MOMENTS, (4, "_record"), (4, "discard")])
def test_interrupted_and_asked_for_again_there_is_one_version(
    seed: int, moment: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seed 1 is promoted, so that HEAD moves; 4 is held, so that it does not."""
    with monkeypatch.context() as context:
        context.setattr(lesson, moment, _interrupt)
        with pytest.raises(KeyboardInterrupt):
            teach(workspace, "a", seed)
    again = Workspace(workspace.root)
    found = teach(again, "a", seed)
    assert found.status == again.ledger.status(found.version) == ("promoted" if seed == 1 else "inconclusive")
    assert found.version.name == "v1"
    assert found.verdict["checks"]
    assert len(again.ledger.versions()) == 2
    assert list(workspace.runs.iterdir()) == []
    assert again.check() == []


def test_a_lesson_that_was_ended_well_may_be_had_again(workspace: Workspace) -> None:
    first, second = teach(workspace, "a", 4), teach(workspace, "a", 4)
    assert (first.version.name, second.version.name) == ("v1", "v2")
    assert first.version.model_artifact == second.version.model_artifact


def test_what_was_killed_after_it_was_recorded_is_not_taken_for_another_lesson(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the very same command gets the recorded lesson, and only as long as it still stands."""
    with monkeypatch.context() as context:
        context.setattr(lesson, "discard", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            teach(workspace, "a", 1)
    (folder,) = workspace.runs.iterdir()
    shutil.copytree(folder, workspace.root / "kept")
    assert teach(workspace, "b", 3).version.name == "v2"
    assert list(workspace.runs.iterdir()) == []

    workspace.roll_back("v0", "")
    shutil.copytree(workspace.root / "kept", folder)
    assert teach(workspace, "a", 1).version.name == "v3", "it was rolled back meanwhile"


def _interrupt(*words: object) -> None:
    raise KeyboardInterrupt


def test_measured_weights_that_are_hurt_before_they_are_recorded_are_not(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two the disk, or somebody who tidies, may do anything."""
    with monkeypatch.context() as context:
        context.setattr(lesson, "_record", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            teach(workspace, "a", 1)
    (folder,) = workspace.runs.iterdir()
    for hurt in (lambda path: path.write_text("other weights"), Path.unlink, lambda path: discard(path.parent)):
        hurt(folder / "lesson" / "model" / "model.safetensors")  # type: ignore[operator]
        with pytest.raises(ArtifactError, match=rf"delete {folder} and teach the skill again|missing or damaged"):
            teach(workspace, "a", 1)
    before = table_rows(workspace.root)
    assert (head(workspace), len(before["versions"])) == ("v0", 1)
    shutil.rmtree(folder)
    assert teach(workspace, "a", 1).status == "promoted"


def test_the_request_of_an_interrupted_lesson_says_what_it_was(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lesson, "_taught", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        teach(workspace, "a", 1)
    (path,) = workspace.runs.glob("*/request.json")
    request = json.loads(path.read_text(encoding="utf-8"))
    assert (request["name"], request["head"], request["config"]["seed"]) == ("a", 0, 1)
