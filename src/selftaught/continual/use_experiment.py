"""The simulation of use: a scripted user talks to the model, its corrections are taught, and it asks again.

A *chain* is one method with one seed: lesson after lesson, each begins with conversations with what the lesson before
left. Each method hears what its own answers call for. Nothing is kept out by the gate: what is compared is what the
lessons do, good or bad. An interrupted experiment goes on where it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from selftaught.config import METHOD_LABELS, Config, LearnConfig
from selftaught.config_files import first_problem, merged, parse_config, parse_override, tomllib
from selftaught.continual.jobs import (
    ADAPTER_FOLDER,
    MODEL_FOLDER,
    Job,
    Suite,
    Watch,
    finished,
    probe_suites,
    run_jobs,
)
from selftaught.continual.learn import run_folder
from selftaught.continual.scripted_user import Fact, ScriptedUser, conversations, known_facts
from selftaught.continual.use_rows import judged, lift_job, sort_feedback
from selftaught.continual.workspace_config import InteractionsConfig
from selftaught.data import data_hash
from selftaught.data.rows import to_json_lines
from selftaught.errors import ConfigError
from selftaught.files import read_json, write_json, write_text
from selftaught.interactions import Interaction, Interactions
from selftaught.interactions.store import utc
from selftaught.types import Example, Message

METHODS = ("sdft", "sft")
LABELS = {"sdft": "SDFT", "sft": "SFT"}
ANSWER_TOKENS = 48  # the longest wanted answer has about 30
KEY, STORE_FILE, ROWS_FILE, HEARD_FILE = "local", "interactions.db", "rows.jsonl", "heard.json"


class UseConfig(Config):
    """The experiment's recipe; each method's table holds a configuration."""

    lessons: int = Field(ge=1)
    events: int = Field(ge=1)
    again: int = Field(ge=0)
    sign_off: str = Field(min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    sdft: dict[str, Any]
    sft: dict[str, Any]

    def learn_config(self, method: str) -> LearnConfig:
        """How a method teaches."""
        return parse_config(getattr(self, method), f"use.{method}")


def use_recipe(overrides: Sequence[str] = ()) -> UseConfig:
    """The packaged recipe, with overrides like "again=8" or "sdft.epochs=1".

    Raises:
        ConfigError: an override names nothing, or holds a wrong value; or there are not so many events.
    """
    tree: dict[str, Any] = tomllib.loads(files("selftaught.recipes").joinpath("use.toml").read_text(encoding="utf-8"))
    for override in overrides:
        tree = merged(tree, parse_override(override))
    try:
        recipe = UseConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"use: {first_problem(error, UseConfig)}") from error
    if len(known_facts(recipe.lessons, recipe.events)) < 4 * recipe.lessons * recipe.events:
        raise ConfigError("use: lessons × events is more than the corpus' 44; lower one of them")
    for method in METHODS:
        if not recipe.learn_config(method).teaches:
            raise ConfigError(f"use.{method}: {recipe.learn_config(method).method} teaches nothing")
    return recipe


@dataclass(frozen=True)
class _Plan:
    """What all chains share."""

    recipe: UseConfig
    facts: tuple[Fact, ...]
    user: ScriptedUser
    base: str
    suites: tuple[Suite, ...]
    watch: Watch
    processes: int


def use_experiment(
    out: str | Path = "runs/use",
    model: str = "smollm2-135m",
    seeds: Sequence[int] | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    watch: Watch = lambda event: None,
    processes: int = 0,
) -> dict[str, Any]:
    """Several hundred conversations with a scripted user, taught in lessons by SDFT and by SFT.

    Args:
        out: folder for models, `report.html` and `report.json`; of each chain the last model is kept.
        model: what is talked to and taught: an embedded name, a directory, or a hub id.
        seeds: a chain of each method for each; None takes the recipe's.
        overrides: changes to the recipe: "sdft.learning_rate=1e-3", "lessons=2".
        resume: go on with an interrupted experiment in `out`, or add seeds to it.
        watch: told what happens.
        processes: how many train together; 0 is one for each core that a batch has rows for.

    Returns:
        The report, as written to `out/report.json`; see docs/report.md.

    Raises:
        SelftaughtError: with one line that says what is wrong and how to mend it.
    """
    from selftaught.models.resolve import resolve_model

    recipe, out = use_recipe(overrides), Path(out)
    facts, user = tuple(known_facts(recipe.lessons, recipe.events)), ScriptedUser(recipe.sign_off)
    asked = tuple(user.question(fact, 2, fact.id) for fact in facts)
    request = {"model": model, "data": data_hash(asked), "config": recipe.model_dump(mode="json", exclude={"seeds"})}
    with run_folder(out, request, resume):
        base = str(resolve_model(model))
        suites = (Suite("asked again", "skill", asked, ANSWER_TOKENS), *probe_suites())
        (base_record,) = run_jobs([(Job("base", "base", base, None, suites=suites), out / "base")], watch, processes)
        base_record["model"]["name"] = model
        plan = _Plan(recipe, facts, user, base, suites, watch, processes)
        runs = {method: _finished_chains(out, method, recipe.lessons) for method in METHODS}
        report: dict[str, Any] = {}
        for seed in dict.fromkeys(seeds or recipe.seeds):  # seed by seed: a stopped one has whole comparisons
            for method in METHODS:
                runs[method][seed] = _chain(plan, out / f"{method}-{seed}", method, seed)
                report = _report(plan, out, base_record, runs)
        return report


def _chain(plan: _Plan, folder: Path, method: str, seed: int) -> list[dict[str, Any]]:
    """The lessons of one method and seed, one after another: of each its record, with what was heard before it."""
    if all(done := _finished_chain(folder, plan.recipe.lessons)):
        return done
    for path in folder.glob(f"{STORE_FILE}*"):
        path.unlink()  # what was said is said again, from what the model answered
    config = plan.recipe.learn_config(method).model_copy(update={"seed": seed})
    store, model, learned = Interactions(folder / STORE_FILE), plan.base, list[Example]()
    for lesson in range(1, plan.recipe.lessons + 1):
        stage = folder / str(lesson)
        heard = _talk(plan, store, model, lesson, stage, folder.name)
        rows, left_out = _rows(plan, store, model, config, stage, folder.name)
        taught = {row.prompt for row in rows}
        job = Job(
            f"{folder.name}/{lesson}",
            f"{METHOD_LABELS[config.method]} seed {seed}, lesson {lesson}",
            model,
            config if rows else None,  # with nothing to correct, nothing is taught
            rows,
            plan.suites,
            origin=plan.base,
            rehearse=tuple(row for row in learned if row.prompt not in taught),
        )
        run_jobs([(job, stage / "lesson")], plan.watch, plan.processes)
        write_json(stage / HEARD_FILE, {**heard, "rows": len(rows), "left_out": left_out})
        learned += rows
        if rows:
            if model != plan.base:
                for weights in (MODEL_FOLDER, ADAPTER_FOLDER):  # as large as the base
                    shutil.rmtree(Path(model).parent / weights, ignore_errors=True)
            model = str(stage / "lesson" / MODEL_FOLDER)
    store.close()
    return _finished_chain(folder, plan.recipe.lessons)


def _talk(plan: _Plan, store: Interactions, model: str, lesson: int, stage: Path, chain: str) -> dict[str, int]:
    """The conversations before a lesson: the model answers, the user says what is wrong, and all is kept."""
    asked = conversations(plan.facts, lesson, plan.recipe.again)
    examples = tuple(plan.user.question(fact, wording, f"{lesson}-{fact.id}-{wording}") for fact, wording in asked)
    suite = Suite("talk", "skill", examples, ANSWER_TOKENS)
    job = Job(f"{chain}/{lesson}", "talk", model, None, suites=(suite,))
    (record,) = run_jobs([(job, stage / "talk")], plan.watch, plan.processes)
    counts = {"conversations": len(asked), "corrected": 0, "wrong": 0, "unsigned": 0}
    answers = record["suites"]["talk"]["results"]
    for number, ((fact, _), example, said) in enumerate(zip(asked, examples, answers, strict=True)):
        answer = said["completion"]
        store.keep(Interaction(example.id, utc(), KEY, f"v{lesson - 1}", example.prompt, answer))
        counts["wrong"] += not plan.user.knows(fact, answer)
        counts["unsigned"] += not plan.user.signs_off(answer)
        reply = plan.user.reply(fact, answer, number)
        if reply is None:
            continue
        counts["corrected"] += 1
        kind, text = reply
        if kind == "follow_up":
            store.follow_up(KEY, [*example.prompt, Message("assistant", answer), Message("user", text)])
        else:
            store.add_feedback(example.id, KEY, kind, text)
    return counts


def _rows(
    plan: _Plan, store: Interactions, model: str, config: LearnConfig, stage: Path, chain: str
) -> tuple[tuple[Example, ...], dict[str, int]]:
    """What is taught of what was said, as `learn --interactions` chooses it; and why the rest is not."""
    found = sort_feedback(store.feedback(), InteractionsConfig())
    job = replace(lift_job(found.chosen, model, config, ANSWER_TOKENS), name=f"{chain}/{stage.name}")
    (record,) = run_jobs([(job, stage / "lift")], plan.watch, plan.processes)
    chosen = judged(found.chosen, record["suites"], found)
    store.set_state([id for one in chosen for id in one.feedback], "learned")
    store.set_state(list(found.left_out), "rejected")
    rows = tuple(one.row for one in chosen)
    write_text(stage / ROWS_FILE, to_json_lines(rows))
    return rows, found.reasons()


def _finished_chain(folder: Path, lessons: int) -> list[Any]:
    """Of each lesson its record with what was heard before it, or None."""
    return [_finished_lesson(folder / str(lesson)) for lesson in range(1, lessons + 1)]


def _finished_lesson(stage: Path) -> dict[str, Any] | None:
    record, heard = finished(stage / "lesson"), stage / HEARD_FILE
    return None if record is None or not heard.is_file() else {**record, "heard": read_json(heard)}


def _finished_chains(out: Path, method: str, lessons: int) -> dict[int, list[dict[str, Any]]]:
    """What earlier calls have finished, whatever seeds this one was asked for."""
    found = {
        int(folder.name.rpartition("-")[2]): _finished_chain(folder, lessons) for folder in out.glob(f"{method}-*")
    }
    return {seed: chain for seed, chain in found.items() if all(chain)}


def _report(
    plan: _Plan, out: Path, base: dict[str, Any], runs: Mapping[str, Mapping[int, list[dict[str, Any]]]]
) -> dict[str, Any]:
    """Written anew after each chain; over the seeds that all methods have."""
    from selftaught.reports.use import compose_use, write_use

    seeds = [seed for seed in sorted(runs[METHODS[0]]) if all(seed in chains for chains in runs.values())]
    if not seeds:
        return {}
    whole = {
        method: {seed: [_marked(plan, record) for record in chains[seed]] for seed in seeds}
        for method, chains in runs.items()
    }
    facts = [
        {"id": fact.id, "event": fact.event, "lesson": fact.lesson, "question": fact.wordings[2]} for fact in plan.facts
    ]
    report = compose_use(facts, _marked(plan, base), whole, LABELS, plan.recipe.sign_off)
    write_use(report, out)
    return report


def _marked(plan: _Plan, record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with, for each question asked again, whether the fact and the sign-off were there."""
    said = [result["completion"] for result in record["suites"]["asked again"]["results"]]
    marks = [
        {"fact": plan.user.knows(fact, text), "signed": plan.user.signs_off(text), "completion": text}
        for fact, text in zip(plan.facts, said, strict=True)
    ]
    return {**record, "again": marks}


def job_labels(seeds: Sequence[int] | None, overrides: Sequence[str] = ()) -> dict[str, str]:
    """What a progress display calls each job, in order."""
    recipe = use_recipe(overrides)
    return {"base": "base"} | {
        f"{method}-{seed}/{lesson}": f"{LABELS[method]} {seed} lesson {lesson}"
        for seed in dict.fromkeys(seeds or recipe.seeds)
        for method in METHODS
        for lesson in range(1, recipe.lessons + 1)
    }
