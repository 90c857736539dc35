"""The file that tells of a lesson under way: whole, short, and never a reason to end it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import made_up
import pytest

from selftaught.continual import lesson, live
from selftaught.continual.jobs import Event
from selftaught.continual.live import LiveFile, is_running

ABOUT = {"skill": "a", "head": "v0", "label": "SDFT"}


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every event is written."""
    monkeypatch.setattr(live, "EVERY_SECONDS", 0.0)


def step(number: int, steps: int = 10, sample: str | None = None, **more: Any) -> Event:
    values = {
        "step": number, "steps": steps, "loss": 1 / number, "gap_nats": None, "anchor_nats": 0.1,
        "seconds": 2.0 * number, "seconds_left": 2.0 * (steps - number), "tokens": 7 * number,
        "sample_id": "q1", "sample": sample,
    }  # fmt: skip
    return Event("lesson", "training", {**values, **more})


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def test_it_tells_what_happened_and_passes_it_on(tmp_path: Path, at_once: None) -> None:
    passed: list[Event] = []
    watch = LiveFile(tmp_path / "live.json", ABOUT, passed.append)
    events = [
        Event("head", "lift", {"gain": 0.5}),
        step(1, sample="Lima"),
        step(2),
        Event("lesson", "measuring", {"what": "a"}),
    ]
    for event in events:
        watch(event)
    assert passed == events
    found = read(tmp_path / "live.json")
    assert {name: found[name] for name in ABOUT} == ABOUT
    assert (found["job"], found["stage"], found["what"], found["lift"]) == ("lesson", "measuring", "a", {"gain": 0.5})
    assert [(point["step"], point["loss"], point["gap_nats"]) for point in found["points"]] == [
        (1, 1.0, None),
        (2, 0.5, None),
    ]
    assert found["samples"] == [{"step": 1, "id": "q1", "text": "Lima"}]
    assert (found["step"], found["steps"], found["seconds_left"], found["tokens"]) == (2, 10, 16.0, 14)
    assert found["started"] <= found["updated"]


def test_it_is_not_written_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int | None] = []
    monkeypatch.setattr(live, "EVERY_SECONDS", 3600.0)
    monkeypatch.setattr(live, "write_json", lambda path, told: written.append(told.get("step")))
    watch = LiveFile(tmp_path / "live.json", ABOUT)
    for number in range(1, 6):
        watch(step(number))
    watch(Event("lesson", "saving the model", {}))
    assert written == [None, 1, 5], "when it or a stage begins; and nothing is lost till then"


def test_a_run_that_goes_on_tells_its_steps_once(tmp_path: Path, at_once: None) -> None:
    first = LiveFile(tmp_path / "live.json", ABOUT)
    for number in range(1, 9):
        first(step(number, sample=f"s{number}"))
    begun = read(tmp_path / "live.json")["started"]
    again = LiveFile(tmp_path / "live.json", ABOUT)
    again(step(6, sample="again", loss=9.0))
    found = read(tmp_path / "live.json")
    assert [point["step"] for point in found["points"]] == [1, 2, 3, 4, 5, 6]
    assert found["points"][-1]["loss"] == 9.0
    assert [sample["text"] for sample in found["samples"]] == ["s1", "s2", "s3", "s4", "s5", "again"]
    assert found["started"] == begun


def test_a_long_run_stays_a_short_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "EVERY_SECONDS", 3600.0)
    watch = LiveFile(tmp_path / "live.json", ABOUT)
    for number in range(1, 3001):
        watch(step(number, sample=f"s{number}"))
    watch(Event("lesson", "saving the model", {}))
    found = read(tmp_path / "live.json")
    steps = [point["step"] for point in found["points"]]
    assert (steps[0], steps[-1]) == (1, 3000)
    assert live.MAX_POINTS / 2 <= len(steps) <= live.MAX_POINTS and steps == sorted(set(steps))
    assert [sample["step"] for sample in found["samples"]] == [1, *range(3002 - live.MAX_SAMPLES, 3001)]


def test_it_never_ends_a_lesson(tmp_path: Path, at_once: None) -> None:
    passed: list[Event] = []
    (tmp_path / "live.json").mkdir()
    watch = LiveFile(tmp_path / "live.json", ABOUT, passed.append)
    watch(step(1))
    assert len(passed) == 1
    damaged = tmp_path / "damaged.json"
    damaged.write_text('{"poi', encoding="utf-8")
    LiveFile(damaged, ABOUT)(step(1))
    assert len(read(damaged)["points"]) == 1


def test_whether_its_writer_lives() -> None:
    assert is_running({"pid": os.getpid()})
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for told in ({"pid": gone.pid}, {"pid": "x"}, {"pid": 10**40}, {}):
        assert not is_running(told)


def test_a_lesson_leaves_it_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up.install(monkeypatch.setattr)
    workspace = made_up.make(tmp_path / "work", "a")
    plain, seen = made_up.run_jobs, []

    def run_jobs(jobs: Any, watch: Any, processes: int) -> Any:
        for job, _ in jobs:
            if job.name == "lesson":
                watch(step(1, sample="Lima"))
                seen.extend(read(path) for path in workspace.runs.glob(f"*/{live.LIVE_FILE}"))
        return plain(jobs, watch, processes)

    monkeypatch.setattr(lesson, "run_jobs", run_jobs)
    made_up.teach(workspace, "a", 1)
    (told,) = seen
    assert (told["skill"], told["head"], told["stage"], told["step"]) == ("a", "v0", "training", 1)
    assert is_running(told)
    assert list(workspace.runs.iterdir()) == [], "it goes with the lesson's folder"
