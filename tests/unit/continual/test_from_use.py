"""From feedback to a new HEAD, with a tiny model that says No, and Yes where it was told to: lessons are real."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from obedient import AGAIN, NO, TEXT, YES, make_obedient_model, settings

from selftaught.cli import main
from selftaught.continual import from_use
from selftaught.continual.from_use import Ended, every, learn_from_use, settle, until
from selftaught.continual.jobs import Event
from selftaught.continual.workspace import Workspace
from selftaught.interactions import Interaction
from selftaught.interactions.store import utc
from selftaught.types import Message

HARD, SOFT = settings(30), settings(1).model_copy(update={"learning_rate": 1e-9})
TOML = """model = "{model}"
[gate]
probes = "none"
tolerance = 0.5
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    model = make_obedient_model(folder)
    (folder / "work").mkdir()
    (folder / "work" / "selftaught.toml").write_text(TOML.format(model=model), encoding="utf-8")
    Workspace.create(folder / "work", str(model)).ledger.close()
    return folder / "work"


@pytest.fixture
def workspace(template: Path, tmp_path: Path) -> Iterator[Workspace]:
    found = Workspace(Path(shutil.copytree(template, tmp_path / "work")))
    yield found
    found.ledger.close()


def tell(
    workspace: Workspace, first: int, last: int, kind: str = "correction", text: str = YES, key: str = "a"
) -> None:
    """Somebody asks, and says something of each answer."""
    with closing(workspace.interactions()) as store:
        for number in range(first, last):
            prompt = (Message("user", f"Is it {number}?"),)
            store.keep(Interaction(f"c{number}-{kind}-{key}", utc(), key, "v0", prompt, NO))
            store.add_feedback(f"c{number}-{kind}-{key}", key, kind, text)


def states(workspace: Workspace) -> dict[str, int]:
    with closing(workspace.interactions()) as store:
        found = [said.state for said, _ in store.feedback()]
    return {state: found.count(state) for state in dict.fromkeys(found)}


def look(workspace: Workspace, config: Any = HARD, **more: Any) -> from_use.FromUse:
    return learn_from_use(workspace, config, processes=1, **more)


def test_corrections_and_remarks_are_learned_through_the_gate_and_only_once(workspace: Workspace) -> None:
    tell(workspace, 0, 6)
    tell(workspace, 6, 10, "text", TEXT)
    tell(workspace, 10, 12, "correction", NO)
    tell(workspace, 12, 13, "down", "")
    found = look(workspace)
    assert found.lesson is not None and found.lesson.status == "promoted", found.lesson
    assert found.words == "use-1: 10 new rows; 2 × the model already answers so"
    skill = workspace.ledger.skill("use-1")
    assert (skill.source, len(skill.card["feedback"]), skill.card["keys"]) == ("use", 10, 1)
    taught, asked = ([row for row in workspace.rows(skill) if row.split == split] for split in ("train", "test"))
    assert {row.demonstration for row in taught} == {YES}, "of a remark: what the model says once it is shown it"
    assert [row.feedback for row in taught] == [None] * 6 + [TEXT] * 4
    assert {row.question for row in asked} == {AGAIN.format(question=row.question) for row in taught}
    assert states(workspace) == {"learned": 10, "rejected": 2, "pending": 1}
    assert workspace.check() == []

    before = len(workspace.ledger.versions())
    again = look(workspace)
    assert (again.lesson, again.words) == (None, "nothing to teach: 0 new rows, and a lesson needs 8")
    assert len(workspace.ledger.versions()) == before


def test_too_little_waits_and_no_model_is_asked(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(from_use, "run_jobs", None)
    tell(workspace, 0, 7)
    assert look(workspace).words == "nothing to teach: 7 new rows, and a lesson needs 8"
    assert states(workspace) == {"pending": 7}
    assert workspace.ledger.skills() == []


def test_what_the_gate_kept_out_is_tried_again_with_what_is_new(workspace: Workspace) -> None:
    tell(workspace, 0, 8)
    found = look(workspace, SOFT)
    assert found.lesson is not None and found.lesson.status != "promoted"
    assert states(workspace) == {"pending": 8}
    assert look(workspace).lesson is None, "the same again would come to the same"
    tell(workspace, 8, 16)
    found = look(workspace)
    assert found.lesson is not None and (found.skill, found.lesson.status) == ("use-2", "promoted")
    assert len(workspace.ledger.skill("use-2").card["feedback"]) == 16
    assert states(workspace) == {"learned": 16}


def test_promoted_by_hand_it_is_learned_too_and_what_was_purged_is_no_obstacle(workspace: Workspace) -> None:
    from selftaught.continual.verdict import promote

    tell(workspace, 0, 4)
    tell(workspace, 4, 8, key="b")
    assert look(workspace, SOFT).skill == "use-1"
    promote(workspace, "v1", ["use-1"], "to see what becomes of it")
    with closing(workspace.interactions()) as store:
        store.purge(key="b")
    settle(workspace)
    assert states(workspace) == {"learned": 4}


def test_a_text_that_does_not_fit_is_left_out_and_stops_no_lesson(workspace: Workspace) -> None:
    tell(workspace, 0, 9)
    tell(workspace, 9, 10, text="yes " * 300)
    tell(workspace, 10, 11, "text", "yes " * 2000)
    found = look(workspace, SOFT)
    assert found.lesson is not None
    assert found.words.startswith("use-1: 9 new rows; 1 × is too long: ")
    assert found.words.count("is too long") == 2
    assert states(workspace) == {"pending": 9, "rejected": 2}


def test_one_key_of_several_has_its_share_and_the_rest_waits(workspace: Workspace) -> None:
    tell(workspace, 0, 16, key="a")
    tell(workspace, 16, 25, key="b")
    found = look(workspace, SOFT)
    assert found.words.startswith("use-1: 18 new rows; 7 × its key has its share")
    assert workspace.ledger.skill("use-1").card["keys"] == 2
    assert states(workspace) == {"pending": 25}


MOMENTS = {
    "the lift": ("head", "measuring", None),
    "training": ("lesson", "training", "use-1"),
    "the questions": ("lesson", "measuring", "use-1"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_told_to_end_it_ends_at_once_and_the_next_look_goes_on(moment: str, workspace: Workspace) -> None:
    job, stage, skill = MOMENTS[moment]
    seen: list[Event] = []
    tell(workspace, 0, 8)
    with pytest.raises(Ended):
        look(workspace, watch=until(lambda: (seen[-1].job, seen[-1].stage) == (job, stage), seen.append))
    assert [one.name for one in workspace.ledger.skills()] == ([skill] if skill else [])
    assert [path.name for path in workspace.runs.glob(".*")] == [], "no scratch is left"
    tell(workspace, 8, 20)
    found = look(workspace)
    assert found.lesson is not None and found.lesson.status == "promoted"
    assert len(workspace.ledger.versions()) == 2
    assert len(workspace.ledger.skill("use-1").card["feedback"]) == (8 if skill else 20)


@pytest.mark.parametrize(("looks", "raises"), [(3, False), (2, True)])
def test_the_service_looks_until_it_is_told_to_end(looks: int, raises: bool) -> None:
    done, waited = [], []

    def one() -> None:
        done.append(len(done))
        if raises and len(done) == looks:
            raise Ended

    def wait(seconds: float) -> bool:
        waited.append(seconds)
        return len(done) == 3

    every(5.0, one, wait)
    assert len(done) == looks
    assert all(0 <= seconds <= 5 for seconds in waited)
    assert len(waited) == looks - raises


# ------------------------------------------------------------------------------------ the command line


@pytest.fixture
def command(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Runs a command in the workspace: its exit code, and what it printed."""

    def call(*words: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["selftaught", *map(str, words), "-w", str(workspace.root)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.err.splitlines()[-1] if stop.value.code == 2 else said.out

    return call


def test_the_commands(workspace: Workspace, command: Any, tmp_path: Path) -> None:
    assert command("interactions", "list") == (0, "no kept feedback\n")
    tell(workspace, 0, 8)
    tell(workspace, 8, 9, text="Perhaps.\nOr not.", key="b")
    _, text = command("interactions", "list")
    assert (
        "    9  pending   correction  v0, b: Perhaps. Or not.\n       asked: Is it 8?\n       answered: No.\n" in text
    )
    assert command("interactions", "reject", 9) == (0, "1 rejected\n")
    assert command("interactions", "approve", 1, 2) == (0, "2 approved\n")
    found = json.loads(command("interactions", "list", "--state", "approved", "--json")[1])
    assert [(one["id"], one["about"]["messages"][0]["content"]) for one in found] == [(1, "Is it 0?"), (2, "Is it 1?")]

    quick = [word for change in ("method=sft", "probes=false", "steps=1") for word in ("-s", change)]
    code, text = command("learn", "--interactions", "--processes", 1, *quick)
    assert (code, text.splitlines()[0]) == (3, "use-1: 8 new rows"), text
    assert "HEAD stays v0" in text
    code, text = command("learn", "--interactions", "--json")
    assert (code, json.loads(text)) == (0, {
        "lesson": None, "skill": None, "words": "nothing to teach: 0 new rows, and a lesson needs 8", "head": "v0",
    })  # fmt: skip
    with closing(workspace.interactions()) as store:
        store.set_state([1], "learned")
    assert command("interactions", "reject", 1)[1].endswith(
        "feedback 1: a lesson has learned from it already; see selftaught rollback"
    )

    rows = [json.loads(line) for line in command("interactions", "export")[1].splitlines()]
    assert [(row["completion"], [one["text"] for one in row["feedback"]]) for row in rows[:8]] == [(NO, [YES])] * 8
    out = tmp_path / "kept.jsonl"
    assert command("interactions", "export", "--out", out) == (0, f"{out}: 9 interactions\n")
    assert [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] == rows
    assert command("interactions", "purge", "--older-than", "1d") == (0, "0 interactions deleted\n")
    assert command("interactions", "purge", "--key", "b") == (0, "1 interactions deleted\n")
    assert command("interactions", "purge", "--all") == (0, "8 interactions deleted\n")
    assert command("interactions", "export") == (0, "")


REFUSED = {
    "interactions purge": "purge: say what: a key, an age, or everything",
    "interactions purge --older-than soon": "--older-than: 'soon' is no time; write 30d or 12h",
    "interactions approve 7": "feedback 7: there is none of this number",
    "learn --every 24h": "--every: is about learning from use; add --interactions",
    "learn --interactions --every often": "--every: 'often' is no time; write 30d or 12h",
    "learn --interactions --every 24h --json": "--every: has no place beside --interactions",
    "learn tools --interactions": "tools: has no place beside --interactions",
    "learn --interactions --documents .": "--documents: has no place beside --interactions",
    "learn --interactions --resume": "--resume: has no place beside --interactions",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_makes_no_sense_is_said_in_one_line(words: str, command: Any) -> None:
    code, line = command(*words.split())
    assert code == 2
    assert line.startswith(f"selftaught: {REFUSED[words]}")
