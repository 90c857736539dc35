"""The sequential experiment and the comparison of two models, on tiny models: what is run, kept and reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selftaught.continual import compare as comparing
from selftaught.continual import jobs, sequential
from selftaught.data.skills.built import BuiltSkill
from selftaught.errors import ConfigError
from selftaught.types import Example, Message, Scorer

QUICK = [
    *("train_rows=4", "test_rows=3", "sdft.anchor.rows=1", "sdft.anchor.pool=2", "sdft.anchor.rehearsal=1"),
    *(f"{method}.{setting}" for method in ("sdft", "sft") for setting in ("steps=2", "batch_size=2")),
    *("sdft.tools.steps=1", "sft.tools.steps=1"),
]


def rows(name: str) -> tuple[Example, ...]:
    return tuple(
        Example(
            id=f"{name}-{split}-{number}",
            prompt=(Message("user", f"{name} {split} {number}?"),),
            demonstration="Yes.",
            answers=("yes",),
            scorer=Scorer("contains"),
            split=split,  # type: ignore[arg-type]
        )
        for split, count in (("train", 6), ("validation", 2), ("test", 5))
        for number in range(count)
    )


@pytest.fixture
def run(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The experiment on made-up skills, with its jobs recorded."""
    monkeypatch.setattr(sequential, "build_skill", lambda name: BuiltSkill(name, name, rows(name), {}))
    monkeypatch.setattr(sequential, "probe_suites", lambda: ())
    done: list[jobs.Job] = []
    plain = jobs.run_job
    monkeypatch.setattr(jobs, "run_job", lambda job, *rest: (done.append(job), plain(job, *rest))[1])

    def call(*seeds: int, **options: Any) -> tuple[dict[str, Any], list[jobs.Job]]:
        done.clear()
        report = sequential.sequential(tmp_path / "out", str(tiny_model), True, seeds, QUICK, processes=1, **options)
        return report, list(done)

    return call


def test_each_stage_teaches_what_the_one_before_left(run: Any, tmp_path: Path) -> None:
    report, done = run(3)
    assert [job.name for job in done[1:]] == [
        f"{method}-3/{name}" for method in ("sdft", "sft") for name in ("tools", "science", "medical")
    ]
    chain = done[1:4]
    assert [Path(job.model).parent.name for job in chain[1:]] == ["1-tools", "2-science"]
    assert {job.origin for job in chain} == {done[0].model}
    assert [{row.id.split("-")[0] for row in job.rehearse} for job in chain] == [set(), {"tools"}, {"tools", "science"}]
    assert all(row.split == "train" for job in chain for row in job.rehearse), "no test question is rehearsed"
    assert [len([row for row in job.examples if row.split == "train"]) for job in chain] == [4, 4, 4]
    assert [len(suite.examples) for suite in chain[0].suites or ()] == [3, 3, 3]
    assert [job.config.total_steps for job in chain if job.config and job.config.steps] == [1, 2, 2]
    kept = sorted(str(path.relative_to(tmp_path / "out").parent) for path in (tmp_path / "out").glob("*/*/model"))
    assert kept == ["sdft-3/3-medical", "sft-3/3-medical"]
    assert report["order"] == ["tools", "science", "medical"] and report["seeds"] == [3]
    assert json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8")) == report


def test_seeds_can_be_added_and_nothing_is_done_twice(run: Any) -> None:
    first, _ = run(0)
    both, done = run(1, resume=True)
    assert both["seeds"] == [0, 1], "what was finished before is in the report"
    assert not any(job.name.endswith("-0") or "-0/" in job.name for job in done)
    again, done = run(0, 1, resume=True)
    assert again["runs"] == both["runs"]
    assert first["runs"] == [one for one in both["runs"] if one["seed"] == 0]


@pytest.mark.parametrize(
    "override",
    [
        "seeds=5",
        "seeds=[]",
        "seeds=[1, 1]",
        "train_rows=abc",
        "test_rows=0",
        "order=tools",
        "sdft=5",
        "foo=1",
        "sft.foo=1",
        "sft.method=sdft",
        "sft.method=oracle",
        "sdft.tools.method=sft",
    ],
)
def test_wrong_settings_are_told_before_anything_is_done(override: str) -> None:
    with pytest.raises(ConfigError, match="sequential"):
        sequential.sequential_recipe(True, [override])


def test_a_model_has_kept_everything_of_itself(tiny_model: Path, tmp_path: Path) -> None:
    data = tmp_path / "facts.jsonl"  # as the probe family is called
    data.write_text('{"question": "Q?", "answers": ["yes"], "split": "test"}\n', encoding="utf-8")
    found = comparing.compare(tiny_model, tiny_model, [data], "none", processes=1)
    (check,) = found["checks"]
    assert (check["name"], check["gained"], check["lost"]) == ("facts", 0, 0)
    assert found["flips"] == {"facts": []}
    assert found["drift_nats"] == pytest.approx(0, abs=1e-6)


def test_nothing_to_ask_is_said(tiny_model: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to ask"):
        comparing.compare(tiny_model, tiny_model, [], "none")
