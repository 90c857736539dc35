"""The sequential experiment: one model is taught skill after skill, by each method, and asked everything after each.

A *chain* is one method with one seed: its first stage teaches the base, each later one what the stage before
left. Chains are jobs in folders of their own, so an interrupted experiment goes on where it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

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
    skill_suite,
)
from selftaught.continual.learn import run_folder
from selftaught.data import data_hash
from selftaught.data.skills import SKILLS, BuiltSkill, build_skill
from selftaught.errors import ConfigError
from selftaught.types import Example

LABELS = {"sdft": "SDFT", "sft": "SFT"}


def sequential_recipe(fast: bool = False, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The packaged recipe, the fast form's changes laid over it if asked for, then overrides like "sdft.epochs=1".

    Returns:
        {"order", "seeds", "train_rows", "test_rows", "methods": {method: {skill: configuration}}}.

    Raises:
        ConfigError: an override names no method or skill, or holds a wrong value.
    """
    text = files("selftaught.recipes").joinpath("sequential.toml").read_text(encoding="utf-8")
    tree: dict[str, Any] = tomllib.loads(text)
    changes = tree.pop("fast")
    tree = merged(tree, changes if fast else {})
    for override in overrides:
        tree = merged(tree, parse_override(override))
    try:
        recipe = SequentialConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"sequential: {first_problem(error, SequentialConfig)}") from error
    if len(set(recipe.order)) < len(recipe.order) or len(set(recipe.seeds)) < len(recipe.seeds):
        raise ConfigError("sequential: name each skill and each seed once")
    methods = {method: _by_skill(getattr(recipe, method), method) for method in LABELS}
    return {**recipe.model_dump(exclude=set(LABELS)), "order": list(recipe.order), "methods": methods}


class SequentialConfig(Config):
    """The experiment's recipe; each method's table holds a configuration, and tables for skills that differ."""

    order: tuple[Literal["tools", "science", "medical"], ...] = Field(min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    train_rows: int = Field(ge=1)
    test_rows: int = Field(ge=1)
    sdft: dict[str, Any]
    sft: dict[str, Any]


def _by_skill(table: dict[str, Any], method: str) -> dict[str, LearnConfig]:
    """A method's configuration for each skill."""
    common = {key: value for key, value in table.items() if key not in SKILLS}
    tables = {name: merged(common, table.get(name, {})) for name in SKILLS}
    configs = {name: parse_config(changes, f"sequential.{method}.{name}") for name, changes in tables.items()}
    for name, config in configs.items():
        if config.distils != (method == "sdft"):  # what the report calls them
            kind = "sdft or off_policy" if method == "sdft" else "a method that does not distil"
            raise ConfigError(f"sequential.{method}.{name}: its method is {config.method}; {kind} belongs there")
        if not config.teaches:
            raise ConfigError(f"sequential.{method}.{name}: {config.method} teaches nothing")
    return configs


def sequential(
    out: str | Path = "runs/sequential",
    model: str = "smollm2-135m",
    fast: bool = False,
    seeds: Sequence[int] | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    watch: Watch = lambda event: None,
    processes: int = 0,
) -> dict[str, Any]:
    """Teaches one model the three skills in turn, by SDFT and by SFT, and measures what is left of each.

    Args:
        out: folder for models, `report.html` and `report.json`; of each chain the last model is kept.
        model: what to teach: an embedded name, a directory, or a hub id.
        fast: the form that fits half an hour on 2 cores: one seed, fewer rows.
        seeds: a chain of each method for each; None takes the recipe's.
        overrides: changes to the recipe: "sdft.learning_rate=1e-4", "sft.tools.epochs=3".
        resume: go on with an interrupted experiment in `out`.
        watch: told what happens.
        processes: how many train together; 0 is one for each core that a batch has rows for.

    Returns:
        The report, as written to `out/report.json`; see docs/report.md.

    Raises:
        SelftaughtError: with one line that says what is wrong and how to mend it.
    """
    from selftaught.models.resolve import resolve_model

    recipe, out = sequential_recipe(fast, overrides), Path(out)
    if seeds:
        recipe["seeds"] = list(dict.fromkeys(seeds))
    skills = {name: thinned(build_skill(name), recipe) for name in recipe["order"]}
    request = {
        "model": model,
        "data": {name: data_hash(rows) for name, rows in skills.items()},
        "config": _as_json({**recipe, "seeds": None}),  # seeds may be added later
    }
    with run_folder(out, request, resume):
        base = str(resolve_model(model))
        suites = (*(skill_suite(name, rows, base) for name, rows in skills.items()), *probe_suites())
        job = Job("base", "base", base, None, suites=suites)
        (base_record,) = run_jobs([(job, out / "base")], watch, processes)
        base_record["model"]["name"] = model
        runs = {method: _finished_chains(out, method, recipe["order"]) for method in LABELS}
        for seed in recipe["seeds"]:  # seed by seed, so that a stopped experiment has whole comparisons
            for method in LABELS:
                configs = {
                    name: recipe["methods"][method][name].model_copy(update={"seed": seed}) for name in recipe["order"]
                }
                folder = out / f"{method}-{seed}"
                runs[method][seed] = _chain(folder, base, skills, configs, suites, watch, processes)
                _report(out, recipe["order"], suites, base_record, runs)
        return _report(out, recipe["order"], suites, base_record, runs)


def thinned(skill: BuiltSkill, recipe: Mapping[str, Any]) -> tuple[Example, ...]:
    """So many rows of each split as the recipe says, evenly taken."""
    limits = {"train": recipe["train_rows"], "test": recipe["test_rows"], "validation": recipe["test_rows"]}
    rows = []
    for split, limit in limits.items():
        found = [example for example in skill.examples if example.split == split]
        keep = min(limit, len(found))
        rows += [found[index * len(found) // keep] for index in range(keep)]
    return tuple(rows)


def _chain(
    folder: Path,
    base: str,
    skills: dict[str, tuple[Example, ...]],
    configs: dict[str, LearnConfig],
    suites: tuple[Suite, ...],
    watch: Watch,
    processes: int,
) -> list[dict[str, Any]]:
    """The stages of one method and seed, one after another."""
    jobs: list[tuple[Job, Path]] = []
    learned: list[Example] = []
    for number, (name, rows) in enumerate(skills.items(), start=1):
        stage = folder / f"{number}-{name}"
        source = str(jobs[-1][1] / MODEL_FOLDER) if jobs else base
        label = f"{METHOD_LABELS[configs[name].method]} seed {configs[name].seed}: {name}"
        job = Job(
            f"{folder.name}/{name}",
            label,
            source,
            configs[name],
            rows,
            suites,
            origin=base,
            rehearse=tuple(learned),
        )
        jobs.append((job, stage))
        learned += [row for row in rows if row.split == "train"]
    records = run_jobs(jobs, watch, processes)
    for _, stage in jobs[:-1]:
        for weights in (MODEL_FOLDER, ADAPTER_FOLDER):  # a stage's model is as large as the base
            shutil.rmtree(stage / weights, ignore_errors=True)
    return records


def _finished_chains(out: Path, method: str, order: Sequence[str]) -> dict[int, list[dict[str, Any]]]:
    """What earlier calls have finished, whatever seeds this one was asked for."""
    chains = {}
    for folder in out.glob(f"{method}-*"):
        records = [finished(folder / f"{number}-{name}") for number, name in enumerate(order, start=1)]
        if all(records):
            chains[int(folder.name.rpartition("-")[2])] = [record for record in records if record]
    return chains


def _report(
    out: Path,
    order: list[str],
    suites: Sequence[Suite],
    base: dict[str, Any],
    runs: dict[str, dict[int, list[dict[str, Any]]]],
) -> dict[str, Any]:
    """Written anew after each chain; over the seeds that all methods have."""
    from selftaught.reports import compose_sequence, write_sequence

    seeds = [seed for seed in sorted(runs["sdft"]) if all(seed in chains for chains in runs.values())]
    if not seeds:
        return {}
    whole = {method: {seed: chains[seed] for seed in seeds} for method, chains in runs.items()}
    clusters = {item: cluster for suite in suites for item, cluster in (suite.clusters or {}).items()}
    report = compose_sequence(order, base, whole, LABELS, base["model"], clusters)
    write_sequence(report, out)
    return report


def _as_json(value: Any) -> Any:
    if isinstance(value, LearnConfig):
        return value.model_dump(mode="json")
    return {key: _as_json(item) for key, item in value.items()} if isinstance(value, dict) else value


def job_labels(fast: bool, seeds: Sequence[int] | None, overrides: Sequence[str] = ()) -> dict[str, str]:
    """What a progress display calls each job, in order."""
    recipe = sequential_recipe(fast, overrides)
    labels = {"base": "base"}
    for seed in dict.fromkeys(seeds or recipe["seeds"]):
        for method, label in LABELS.items():
            labels |= {f"{method}-{seed}/{name}": f"{label} {seed} {name}" for name in recipe["order"]}
    return labels
