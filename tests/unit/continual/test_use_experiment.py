"""The simulation of use on a tiny model: who talks to whom, what is taught, kept and counted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selftaught.continual import jobs, use_experiment
from selftaught.continual.use_experiment import job_labels, use_recipe
from selftaught.errors import ConfigError
from selftaught.interactions import Interactions

QUICK = [
    *("lessons=2", "events=1", "again=2", "sdft.anchor.rows=1", "sdft.anchor.pool=2", "sdft.anchor.rehearsal=1"),
    *(f"{method}.{setting}" for method in ("sdft", "sft") for setting in ("steps=2", "batch_size=2", "probes=false")),
]

PROBES = jobs.probe_suites()[0]
FEW = (replace(PROBES, examples=PROBES.examples[:3]),)


@pytest.fixture
def run(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The experiment and the jobs that it did. The tiny model follows nothing; what was said counts as followed."""
    monkeypatch.setattr(use_experiment, "probe_suites", lambda: FEW)
    monkeypatch.setattr(use_experiment, "judged", lambda candidates, suites, found: list(candidates))
    done: list[jobs.Job] = []
    plain = jobs.run_job

    def run_job(job: jobs.Job, folder: Path, *rest: Any) -> Any:
        if jobs.finished(folder) is None:
            done.append(job)
        return plain(job, folder, *rest)

    monkeypatch.setattr(jobs, "run_job", run_job)

    def call(*seeds: int, **options: Any) -> tuple[dict[str, Any], list[jobs.Job]]:
        done.clear()
        report = use_experiment.use_experiment(tmp_path / "out", str(tiny_model), seeds, QUICK, processes=1, **options)
        return report, list(done)

    return call


def test_each_lesson_is_talked_about_with_what_the_one_before_left(run: Any, tmp_path: Path) -> None:
    report, done = run(3)
    assert list(job_labels([3], QUICK)) == list(dict.fromkeys(job.name for job in done))
    talk, lift, lesson, talk2, _, lesson2 = done[1:7]
    assert {job.model for job in (talk, lift, lesson)} == {done[0].model}
    assert Path(lesson2.model).parts[-3:-1] == Path(talk2.model).parts[-3:-1] == ("1", "lesson")
    assert [len(job.suites[0].examples) for job in (talk, talk2)] == [4, 6]  # type: ignore[index]
    assert (lesson2.origin, len(lesson2.rehearse)) == (done[0].model, 4)
    asked = {row.prompt for suite in lesson.suites or () for row in suite.examples}
    taught = {row.prompt for job in done if job.config for row in job.examples}
    assert taught and not asked & taught, "what is counted is taught by nobody"

    kept = sorted(
        str(path.relative_to(tmp_path / "out").parent) for path in (tmp_path / "out").rglob("model/config.json")
    )
    assert kept == ["sdft-3/2/lesson/model", "sft-3/2/lesson/model"]
    store = Interactions(tmp_path / "out" / "sdft-3" / "interactions.db")
    assert {said.state for said, _ in store.feedback()} == {"learned"}
    assert {said.kind for said, _ in store.feedback()} == {"correction", "follow_up"}
    store.close()

    assert report["base"]["needs"]["value"] == 1
    assert [row["method"] for row in report["summary"]] == ["sdft", "sft"]
    assert [one["conversations"] for one in report["summary"][0]["heard"]] == [4, 6]
    assert json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8")) == report
    assert "Learning from use" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_interrupted_it_goes_on_seeds_can_be_added_and_nothing_is_done_twice(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = run(0)
    plain = jobs.run_job

    def killed(job: jobs.Job, *rest: Any) -> Any:
        if job.name == "sft-1/2" and job.config:
            raise KeyboardInterrupt
        return plain(job, *rest)

    with monkeypatch.context() as context:
        context.setattr(jobs, "run_job", killed)
        with pytest.raises(KeyboardInterrupt):
            run(1, resume=True)
    both, done = run(1, resume=True)
    assert [job.name for job in done] == ["sft-1/2"], "what it was told before is told again, and asked of nobody"
    assert both["seeds"] == [0, 1]
    assert [one for one in both["runs"] if one["seed"] == 0] == first["runs"]
    again, done = run(0, 1, resume=True)
    assert (again["runs"], done) == (both["runs"], [])


def test_where_nothing_can_be_taught_the_model_stays(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(use_experiment, "judged", lambda candidates, suites, found: [])
    report, done = run(0)
    assert {job.model for job in done} == {done[0].model}
    assert all(job.config is None for job in done)
    assert [one["rows"] for one in report["summary"][1]["heard"]] == [0, 0]
    assert [one["value"] for one in report["summary"][1]["drift_nats"]] == pytest.approx([0, 0], abs=1e-6)


@pytest.mark.parametrize("override", ["lessons=20", "seeds=[]", "again=x", "sft.method=oracle", "sdft.foo=1", "foo=1"])
def test_wrong_settings_are_told_before_anything_is_done(override: str) -> None:
    with pytest.raises(ConfigError, match="use"):
        use_recipe([override])
