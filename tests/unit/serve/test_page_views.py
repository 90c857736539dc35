"""What the page shows: the lineage's drawing, and every number as the ledger has it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import made_up
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import make, teach

from selftaught.continual import views as terminal
from selftaught.continual.live import LIVE_FILE
from selftaught.continual.workspace import Workspace
from selftaught.errors import ArtifactError, ConfigError
from selftaught.interactions import Interaction
from selftaught.serve.page import views
from selftaught.serve.page.lanes import places
from selftaught.types import Message


@pytest.fixture(autouse=True)
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    made_up.install(monkeypatch.setattr)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """v1, promoted; v2, rejected; v3, promoted and HEAD; v4, rejected."""
    folder = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as context:
        made_up.install(context.setattr)
        workspace = make(folder / "work", "a", "b")
        for skill, seed in (("a", 1), ("b", 2), ("b", 3), ("a", 4)):
            teach(workspace, skill, seed)
        workspace.ledger.close()
    return folder


@pytest.fixture
def workspace(template: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    return Workspace(tmp_path / "work")


# ---------------------------------------------------------------------------------------- the drawing


def test_a_rejected_branch_stands_beside_the_line() -> None:
    """v3 ← v1 ← v0 in force; v4 taught from v3, v2 from v1."""
    drawn = places([(4, 3), (3, 1), (2, 1), (1, 0), (0, None)], {3, 1, 0})
    assert [place.lane for place in drawn] == [1, 0, 1, 0, 0]
    assert [place.through for place in drawn] == [(), (), (0,), (), ()]
    assert [place.joins for place in drawn] == [(), (1,), (), (0, 1), (0,)]


def test_what_was_rolled_back_keeps_its_own_line() -> None:
    """HEAD went back to v0: v1 ← v2 is one branch, v3 another."""
    drawn = places([(3, 0), (2, 1), (1, 0), (0, None)], {0})
    assert [place.lane for place in drawn] == [1, 2, 2, 0]
    assert drawn[1].through == drawn[2].through == (1,)
    assert drawn[3].joins == (1, 2)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[tuple[int, int | None]], set[int]]:
    parents = [None, *(draw(st.integers(0, number - 1)) for number in range(1, draw(st.integers(1, 14))))]
    head = draw(st.integers(0, len(parents) - 1))
    force, at = set(), head
    while at is not None:
        force.add(at)
        at = parents[at]
    return list(reversed(list(enumerate(parents)))), force


@given(histories())
def test_every_line_leads_to_a_versions_parent_and_crosses_no_version(history: Any) -> None:
    """Followed row by row from above, each lane's line is one version's, until it ends at that one's parent."""
    versions, force = history
    parents, open_lines = dict(versions), {}  # of a lane: whose parents' row its line looks for
    for (number, parent), place in zip(versions, places(versions, force), strict=True):
        assert set(place.joins) | set(place.through) == set(open_lines), "no line ends or begins in the air"
        for lane in place.joins:
            assert all(parents[child] == number for child in open_lines.pop(lane))
        assert place.lane not in place.through, "a line crosses a version"
        assert all(parents[child] != number for children in open_lines.values() for child in children)
        assert (place.lane == 0) == (number in force)
        if parent is not None:
            open_lines.setdefault(place.lane, []).append(number)
    assert open_lines == {}


# --------------------------------------------------------------------------------------- the versions


def test_versions_are_the_ledgers_with_what_the_gate_said(workspace: Workspace) -> None:
    found = views.versions(workspace)
    logged = terminal.log(workspace)["versions"]
    assert [one["version"] for one in found] == ["v4", "v3", "v2", "v1", "v0"]
    for one, row in zip(found, logged, strict=True):
        assert {name: one[name] for name in ("parent", "skill", "status", "reason", "drift_nats")} == {
            name: row[name] for name in ("parent", "skill", "status", "reason", "drift_nats")
        }
    assert [one["in_force"] for one in found] == [False, True, False, True, True]
    assert [one["version"] for one in found if one["is_head"]] == ["v3"]
    (lost, _), said = found[2]["verdict"]["checks"], workspace.ledger.verdict(workspace.ledger.version("v2"))
    assert said is not None
    assert lost == {name: said["checks"][0][name] for name in views.CHECK_FIELDS}
    assert (lost["name"], lost["outcome"], lost["lost"]) == ("a", "regressed", 28)
    assert found[-1]["verdict"] is None


def test_suites_have_a_cell_for_each_version(workspace: Workspace) -> None:
    found = {one["suite"]: one["cells"] for one in views.suites(workspace)}
    assert [cell["correct"] for cell in found["a"]] == [made_up.BASE["a"], 30, 2, 30, 4]
    assert [cell["correct"] for cell in found["b"]] == [0, 0, 30, 25, 0]
    assert [cell["taught"] for cell in found["b"]] == [False, False, True, True, False]
    assert all(cell["total"] == made_up.ITEMS for cell in found["a"])
    assert all(cell["low"] - 1e-9 <= cell["value"] == cell["correct"] / cell["total"] for cell in found["a"])


def test_a_version_that_was_not_asked_has_an_empty_cell(workspace: Workspace) -> None:
    made_up.registry.add_skill(workspace, "c", made_up.rows("c"), "c.jsonl")
    (cells,) = (one["cells"] for one in views.suites(workspace) if one["suite"] == "c")
    assert cells == [None] * 5


def test_flips_are_what_the_answers_say(workspace: Workspace) -> None:
    found = views.flips(workspace, "v2")
    assert (found["before"], found["after"]) == ("v1", "v2")
    by_suite = {one["suite"]: one for one in found["suites"]}
    assert (by_suite["a"]["gained"], by_suite["a"]["lost"]) == (0, 28)
    assert [flip["id"] for flip in by_suite["a"]["flips"]] == [f"a-test-{n}" for n in range(2, 30)]
    first = by_suite["a"]["flips"][0]
    assert (first["question"], first["gained"], first["after"]) == ("And a2?", False, "“a-test-2”\u2028…")
    both = views.flips(workspace, "v3")["suites"]
    assert [(one["suite"], one["gained"]) for one in both] == [("b", 25)], "what did not flip is left out"


def test_losses_come_first(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = [{"id": str(n), "gained": n % 2 == 0} for n in range(6)]
    suite = {"suite": "a", "gained": 3, "lost": 3, "flips": mixed}
    monkeypatch.setattr(terminal, "difference", lambda *words: {"before": "v0", "after": "v1", "suites": [suite]})
    (found,) = views.flips(workspace, "v1")["suites"]
    assert [flip["id"] for flip in found["flips"]] == ["1", "3", "5", "0", "2", "4"]


def test_no_flips_of_the_base_of_nothing_or_of_damaged_answers(workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match="v0: is the base"):
        views.flips(workspace, "v0")
    with pytest.raises(ConfigError, match="v9: no such version"):
        views.flips(workspace, "v9")
    (one, *_) = workspace.ledger.evaluations(workspace.ledger.version("v2"))
    workspace.artifacts.path(one.results_artifact).write_text("{}", encoding="utf-8")
    with pytest.raises(ArtifactError, match="is damaged"):
        views.flips(workspace, "v2")


# ------------------------------------------------------------------------- lessons, feedback, and all of it


def leave_live(workspace: Workspace, name: str, **told: Any) -> Path:
    path = workspace.runs / name / LIVE_FILE
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"skill": name, "points": [], "samples": [], **told}), encoding="utf-8")
    return path


def test_a_lesson_that_runs_comes_before_one_that_was_interrupted(workspace: Workspace) -> None:
    assert views.lessons(workspace) == []
    leave_live(workspace, "old", pid=2**22 + 1, updated="2026-01-02T00:00:00Z")
    points = [{"step": n, "loss": 1 / n} for n in range(1, 1001)]
    leave_live(workspace, "new", pid=os.getpid(), updated="2026-01-01T00:00:00Z", points=points)
    leave_live(workspace, "torn").write_text('{"skill": "to', encoding="utf-8")
    found = views.lessons(workspace)
    assert [(one["skill"], one["running"]) for one in found] == [("new", True), ("old", False)]
    steps = [point["step"] for point in found[0]["points"]]
    assert (len(steps), steps[0], steps[-1]) == (views.CURVE_POINTS, 1, 1000)
    assert steps == sorted(set(steps))


def kept(workspace: Workspace, count: int = 2) -> None:
    store = workspace.interactions()
    for n in range(count):
        turns = (Message("system", "Be short."), Message("user", f"Question {n}?"))
        store.keep(Interaction(f"chatcmpl-{n}", "2026-01-01T00:00:00Z", "local", "v1", turns, f"Answer {n}"))
        store.add_feedback(f"chatcmpl-{n}", "local", "correction", f"Better {n}")
    store.close()


def test_feedback_waits_with_what_it_is_about(workspace: Workspace) -> None:
    assert views.feedback(None) is None
    kept(workspace, views.SHOWN_FEEDBACK + 3)
    store = workspace.interactions()
    store.set_state([1], "approved")
    found = views.feedback(store)
    store.close()
    assert found is not None
    assert (found["pending"], len(found["shown"])) == (views.SHOWN_FEEDBACK + 2, views.SHOWN_FEEDBACK)
    first = found["shown"][0]
    assert (first["id"], first["kind"], first["text"], first["version"]) == (2, "correction", "Better 1", "v1")
    assert first["messages"][-1] == {"role": "user", "content": "Question 1?"}
    assert first["completion"] == "Answer 1"


def test_the_whole_is_json_and_of_one_moment(workspace: Workspace) -> None:
    kept(workspace)
    store = workspace.interactions()
    found = json.loads(json.dumps(views.state(workspace, store), allow_nan=False))
    store.close()
    assert (found["head"], found["skills"], found["workspace"]["name"]) == ("v3", ["a", "b"], "work")
    assert found["feedback"]["pending"] == 2 and found["approve"] == "auto"
    assert len(found["versions"]) == len(found["suites"][0]["cells"]) == 5


def test_the_fingerprint_changes_with_what_is_shown_and_not_by_looking(workspace: Workspace) -> None:
    path = workspace.root / ".selftaught" / "interactions.db"
    kept(workspace)
    seen = [views.fingerprint(workspace, path)]

    def look() -> None:
        opened = Workspace.open(workspace.root)
        store = opened.interactions()
        views.state(opened, store)
        store.close()
        opened.ledger.close()

    def changed() -> bool:
        seen.append(views.fingerprint(workspace, path))
        return seen[-1] not in seen[:-1]

    look()
    assert views.fingerprint(workspace, path) == seen[0]
    live = leave_live(workspace, "b", pid=os.getpid())
    assert changed()
    live.write_text(live.read_text(encoding="utf-8").replace('"b"', '"bb"'), encoding="utf-8")
    assert changed()
    workspace.roll_back("v1", "so")
    assert changed()
    store = workspace.interactions()
    store.set_state([1], "rejected")
    assert changed()
    store.close()


def test_an_empty_workspace_has_a_view(tmp_path: Path) -> None:
    found = views.state(make(tmp_path / "work"), None)
    assert (found["head"], found["skills"], found["suites"], found["lessons"]) == ("v0", [], [], [])
    assert found["feedback"] is None
    (base,) = found["versions"]
    assert (base["status"], base["is_head"], base["verdict"]) == ("base", True, None)
