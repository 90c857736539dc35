"""The sequential experiment: one model is taught skill after skill, by each method, and asked everything after each.

A *chain* is one method with one seed: its first stage teaches the base, each later one what the stage before
left. Chains are jobs in folders of their own, so an interrupted experiment goes on where it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from selftaught.config import LearnConfig, merged, parse_config, parse_override, tomllib
from selftaught.continual.jobs import MODEL_FOLDER, Job, Suite, Watch, finished, probe_suites, run_jobs, skill_suite
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
    known = set(tree)
    for override in overrides:
        tree = merged(tree, parse_override(override))
    unknown = sorted(set(tree) - known)
    if unknown:
        raise ConfigError(f"unknown setting {unknown[0]!r} of the experiment; known are {', '.join(sorted(known))}")
    methods = {}
    for method in LABELS:
        tables = {name: tree[method].pop(name, {}) for name in SKILLS}
        methods[method] = {
            name: parse_config(merged(tree[method], table), f"sequential.{method}.{name}")
            for name, table in tables.items()
        }
    return {
        "order": _names(tree["order"], "order"),
        "seeds": [int(seed) for seed in tree["seeds"]],
        "train_rows": int(tree["train_rows"]),
        "test_rows": int(tree["test_rows"]),
        "methods": methods,
    }


def _names(names: Sequence[str], where: str) -> list[str]:
    unknown = [name for name in names if name not in SKILLS]
    if unknown or len(set(names)) != len(names) or not names:
        raise ConfigError(f"{where}: name each skill once, of {', '.join(SKILLS)}; got {', '.join(names) or 'none'}")
    return list(names)


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
    if seeds is not None:
        recipe["seeds"] = list(dict.fromkeys(seeds))
    skills = {name: _thinned(build_skill(name), recipe) for name in recipe["order"]}
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
        runs: dict[str, dict[int, list[dict[str, Any]]]] = {method: {} for method in LABELS}
        for seed in recipe["seeds"]:  # seed by seed, so that a stopped experiment has whole comparisons
            for method in LABELS:
                configs = {
                    name: recipe["methods"][method][name].model_copy(update={"seed": seed}) for name in recipe["order"]
                }
                folder = out / f"{method}-{seed}"
                runs[method][seed] = _chain(folder, base, skills, configs, suites, watch, processes)
                _report(out, recipe["order"], suites, base_record, runs)
        return _report(out, recipe["order"], suites, base_record, runs)


def _thinned(skill: BuiltSkill, recipe: dict[str, Any]) -> tuple[Example, ...]:
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
        label = f"{LABELS[configs[name].method]} seed {configs[name].seed}: {name}"
        job = Job(
            f"{folder.name}/{name}",
            label,
            source,
            configs[name],
            rows,
            suites,
            drift_base=base,
            rehearse=tuple(learned),
        )
        jobs.append((job, stage))
        learned += [row for row in rows if row.split == "train"]
    done = all(finished(stage) is not None for _, stage in jobs)
    records = run_jobs(jobs, watch, processes)
    if not done:
        for _, stage in jobs[:-1]:
            shutil.rmtree(stage / MODEL_FOLDER, ignore_errors=True)  # a stage's model is as large as the base
    return records


def _report(
    out: Path,
    order: list[str],
    suites: Sequence[Suite],
    base: dict[str, Any],
    runs: dict[str, dict[int, list[dict[str, Any]]]],
) -> dict[str, Any]:
    """Written anew after each chain; over the seeds that all methods have."""
    from selftaught.reports import compose_sequence, write_sequence

    seeds = [seed for seed in runs["sdft"] if all(seed in chains for chains in runs.values())]
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
    for seed in recipe["seeds"] if seeds is None else dict.fromkeys(seeds):
        for method, label in LABELS.items():
            labels |= {f"{method}-{seed}/{name}": f"{label} {seed} {name}" for name in recipe["order"]}
    return labels
