"""Ablations on tiny models: what a recipe means, what is run, what is kept, and what the report says."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest

from selftaught.continual import ablate as module
from selftaught.continual import jobs
from selftaught.continual.ablate import Between, ablate, ablate_recipe
from selftaught.errors import ConfigError, TrainingError
from selftaught.recipes import packaged_recipes
from selftaught.reports.ablation_html import task_notes
from selftaught.types import Example, Message, Scorer

COMMON = """
tasks = ["knowledge"]
points = 2
[common]
steps = 3
batch_size = 2
anchor = {rows = 1, pool = 2, max_new_tokens = 4}
rollout.max_new_tokens = 4
"""


def recipe(folder: Path, text: str, common: str = COMMON) -> Path:
    path = folder / "recipe.toml"
    path.write_text(common + text, encoding="utf-8")
    return path


# ------------------------------------------------------------------------------------------ recipes


def test_named_arms_come_first_and_a_grid_is_every_combination(tmp_path: Path) -> None:
    text = '[arms.plain]\n[arms.sft]\nmethod = "sft"\n[grid]\nlearning_rate = [1e-4, 2e-4]\nanchor.rows = [0, 2]\n'
    _, arms = ablate_recipe(recipe(tmp_path, text))
    assert list(arms) == [
        "plain",
        "sft",
        *(f"learning_rate={rate}, anchor.rows={rows}" for rate in (0.0001, 0.0002) for rows in (0, 2)),
    ]
    assert (arms["sft"].method, arms["plain"].method) == ("sft", "sdft")
    last = arms["learning_rate=0.0002, anchor.rows=2"]
    assert (last.learning_rate, last.anchor.rows, last.anchor.pool, last.steps) == (2e-4, 2, 2, 3)


def test_a_random_search_draws_different_arms_from_its_seed(tmp_path: Path) -> None:
    text = "[random]\ntrials = 5\nseed = {}\noptions.learning_rate = {{low = 1e-5, high = 1e-3, log = true}}\n"
    text += "options.anchor.rows = [0, 4]\n"
    first, again, other = (list(ablate_recipe(recipe(tmp_path, text.format(seed)))[1]) for seed in (1, 1, 2))
    assert first == again and len(set(first)) == 5 and not set(first) & set(other)
    few = "[random]\ntrials = 5\noptions.anchor.rows = [0, 4]\n"
    assert sorted(ablate_recipe(recipe(tmp_path, few))[1]) == ["anchor.rows=0", "anchor.rows=4"], "there are no more"


def test_a_logarithmic_range_is_drawn_evenly_in_ratio() -> None:
    source = random.Random(0)
    drawn = [Between(low=1e-5, high=1e-3, log=True).drawn(source) for _ in range(2000)]
    assert min(drawn) >= 1e-5 and max(drawn) <= 1e-3
    assert 0.45 < sum(value < 1e-4 for value in drawn) / 2000 < 0.55


def test_between_whole_numbers_a_whole_one_is_drawn(tmp_path: Path) -> None:
    text = "[random]\ntrials = 3\noptions.anchor.rows = {low = 2, high = 4}\n"
    assert sorted(arm.anchor.rows for arm in ablate_recipe(recipe(tmp_path, text))[1].values()) == [2, 3, 4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "nothing to compare"),
        ("[arms.x]\nepoch = 3\n", "x: unknown key .epoch."),
        ("[arms.x]\nseed = 3\n", "set seeds and points"),
        ("[grid]\nanchor.rows = []\n", "grid"),
        ("[grid]\nanchor.rows = [1, 1]\n", "anchor.rows=1: is there twice"),
        ("[random]\ntrials = 2\noptions.learning_rate = {low = 2, high = 1}\n", "low must be at most high"),
        ("[random]\ntrials = 2\noptions.learning_rate = {low = 0, high = 1, log = true}\n", "above 0"),
        ("[random]\ntrials = 2\noptions.learning_rate = []\n", "options.learning_rate"),
        ("[arms.x]\nprobes = false\n", "x: an ablation always measures what is forgotten"),
        ("[arm.x]\n", "unknown key 'arm'; did you mean arms"),
    ],
)
def test_a_wrong_recipe_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        ablate_recipe(recipe(tmp_path, text))
    assert "\n" not in str(error.value)


def test_a_task_or_seed_is_named_once_and_overrides_reach_everything(tmp_path: Path) -> None:
    path = recipe(tmp_path, "[arms.x]\n")
    with pytest.raises(ConfigError, match="each task and each seed once"):
        ablate_recipe(path, ["seeds=[1, 1]"])
    config, arms = ablate_recipe(path, ["seeds=[1, 2]", "common.steps=7", "arms.y.method='sft'"])
    assert config.seeds == (1, 2) and arms["x"].steps == 7 and list(arms) == ["x", "y"]


@pytest.mark.parametrize("name", sorted(packaged_recipes("ablate")))
def test_every_packaged_ablation_can_be_read(name: str) -> None:
    config, arms = ablate_recipe(name)
    assert len(arms) > 3 and config.tasks


# --------------------------------------------------------------------------------------------- runs


def facts() -> list[Example]:
    return [
        Example(
            id=f"fact-{number}",
            prompt=(Message("user", f"Question {number}?"),),
            demonstration="Yes.",
            context=f"Document {number}.",
            answers=("yes",),
            scorer=Scorer("contains"),
            group="direct" if number < 4 else "indirect",
            split="train" if number < 4 else "test",
        )
        for number in range(6)
    ]


@pytest.fixture
def run(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An ablation of made-up facts, with the jobs that were really done."""
    probe = jobs.Suite(
        "facts", "probe", (Example("probe-1", (Message("user", "P?"),), answers=("p",), group="facts"),), 3
    )
    monkeypatch.setattr(module, "disasters", lambda events: facts())
    monkeypatch.setattr(module, "probe_suites", lambda: (probe,))
    done: list[str] = []
    plain = jobs.run_job

    def counted(job: jobs.Job, folder: Path, *rest: Any) -> Any:
        if jobs.finished(folder) is None:
            done.append(job.name)
        return plain(job, folder, *rest)

    monkeypatch.setattr(jobs, "run_job", counted)

    def call(text: str, *overrides: str, resume: bool = False) -> tuple[dict[str, Any], list[str]]:
        done.clear()
        path = recipe(tmp_path, text)
        report = ablate(path, tmp_path / "out", str(tiny_model), overrides, resume, processes=1)
        return report, list(done)

    return call


ARMS = '[arms.ours]\n[arms.sft]\nmethod = "sft"\n[arms.cpt]\nmethod = "cpt"\n'


def test_each_arm_is_taught_with_each_seed_and_measured_along_the_way(run: Any, tmp_path: Path) -> None:
    report, done = run(ARMS, "seeds=[3, 5]")
    names = [f"knowledge/{arm}/{seed}" for seed in (3, 5) for arm in ("ours", "sft", "cpt")]
    assert done == ["base/knowledge", *names]
    found = report["tasks"]["knowledge"]
    assert found["groups"] == ["direct", "indirect"] and found["main_group"] == "direct"
    assert [arm["name"] for arm in found["arms"]] == ["ours", "sft", "cpt"]
    for arm in found["arms"]:
        assert [at["step"] for at in arm["curve"]] == [0, 2, 3]
        assert all(
            set(at["accuracy"]) == {"direct", "indirect"} and set(at["probes"]) == {"facts"} for at in arm["curve"]
        )
        assert arm["seeds"] == [3, 5] and arm["config"]["evaluate_every"] == 2
        assert arm["curve"][-1]["drift_nats"] == pytest.approx(arm["drift_nats"])
    assert found["arms"][0]["drift"]["low"] is not None, "two seeds give an interval"
    assert [row["arm"] for row in found["differences"]] == ["sft", "cpt"]
    assert json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8")) == report
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page and "continued" not in page and ">cpt<" in page
    assert not list((tmp_path / "out").glob("**/model.safetensors")), "models go once they are measured"


def test_a_run_that_fails_is_reported_and_the_others_are_done(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = jobs._teach

    def teach(job: jobs.Job, *rest: Any) -> Any:
        if job.config is not None and job.config.learning_rate == 1 and job.config.seed == 3:
            raise TrainingError("step 2: the loss is not finite")
        return plain(job, *rest)

    monkeypatch.setattr(jobs, "_teach", teach)
    arms = '[arms.ours]\n[arms."w/o warm-up"]\nlearning_rate = 1.0\n'
    report, _ = run(arms, "seeds=[3, 5]")
    found = report["tasks"]["knowledge"]
    assert [(arm["name"], arm["seeds"]) for arm in found["arms"]] == [("ours", [3, 5]), ("w/o warm-up", [5])]
    assert found["not_run"] == [{"arm": "w/o warm-up", "seed": 3, "why": "step 2: the loss is not finite"}]
    assert task_notes(found) == ["w/o warm-up, seed 3, is missing: step 2: the loss is not finite."]
    with pytest.raises(TrainingError, match="no run came to an end; x, seed 3: step 2: the loss is not finite"):
        run("[arms.x]\nlearning_rate = 1.0\n", "seeds=[3]", resume=True)


def test_a_run_that_ended_itself_is_shown_beside_whole_ones(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = jobs._teach

    def teach(job: jobs.Job, *rest: Any) -> Any:
        record = plain(job, *rest)
        if job.config is not None and job.config.seed == 5:
            record |= {"stopped": {"at": 3, "kept": 1, "why": "its answers no longer end"}, "steps": 1}
            record["curve"] = [{**record["curve"][-1], "step": 1}]
        return record

    monkeypatch.setattr(jobs, "_teach", teach)
    report, _ = run("[arms.ours]\n", "seeds=[3, 5]")
    (arm,) = report["tasks"]["knowledge"]["arms"]
    assert [at["step"] for at in arm["curve"]] == [0, 3], "moments that both have, and their ends"
    assert arm["curve"][-1]["drift_nats"] == pytest.approx(arm["drift_nats"]) and set(arm["curve"][-1]["probes"]) == {
        "facts"
    }
    (note,) = task_notes(report["tasks"]["knowledge"])
    assert note == (
        "ours, seed 5, ended itself after step 3: its answers no longer end. What it had learned by step 1 is kept, "
        "and measured here."
    )


def test_an_arm_that_learns_documents_is_left_out_where_there_are_none(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = [dataclasses.replace(row, context=None) for row in facts()]
    monkeypatch.setattr(module, "disasters", lambda events: bare)
    report, done = run(ARMS)
    found = report["tasks"]["knowledge"]
    assert [arm["name"] for arm in found["arms"]] == ["ours", "sft"] and "knowledge/cpt/0" not in done
    assert found["not_run"] == [{"arm": "cpt", "seed": 0, "why": "the task has no documents to train on"}]


def test_oracle_retrieval_is_measured_and_not_taught(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, list[str]] = {}
    plain = jobs._measure

    def spied(job: jobs.Job, *rest: Any) -> Any:
        asked[job.name] = [example.question for suite in job.suites or () for example in suite.examples]
        return plain(job, *rest)

    monkeypatch.setattr(jobs, "_measure", spied)
    report, _ = run(ARMS + '[arms.oracle]\nmethod = "oracle"\n')
    questions = [f"Question {number}?" for number in range(6)]
    assert asked["knowledge/ours/0"] == [*questions, "P?"]
    shown = [f"Document {number}.\n\nQuestion {number}?" for number in range(6)]
    assert asked["knowledge/oracle/0"] == [*shown, "P?"]
    found = report["tasks"]["knowledge"]
    oracle = found["arms"][-1]
    assert (oracle["steps"], oracle["seconds"], oracle["drift_nats"]) == (0, 0.0, 0.0)
    assert "oracle" not in found["front"]


def test_what_is_done_is_kept_and_arms_seeds_and_settings_can_be_added(run: Any) -> None:
    first, _ = run(ARMS)
    same, done = run(ARMS, resume=True)
    assert done == [] and same["tasks"] == first["tasks"]
    more, done = run(ARMS + '[arms."no anchor"]\nanchor.rows = 0\n', "seeds=[0, 1]", resume=True)
    assert done == ["knowledge/no anchor/0", *(f"knowledge/{arm}/1" for arm in ("ours", "sft", "cpt", "no anchor"))]
    assert [arm["seeds"] for arm in more["tasks"]["knowledge"]["arms"]] == [[0, 1]] * 4
    _, done = run(ARMS, "arms.sft.learning_rate=1e-3", resume=True)
    assert done == ["knowledge/sft/0"], "only what was changed is run again"
