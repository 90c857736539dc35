"""Ablations: configurations ("arms") taught the same tasks with the same seeds, and measured along the way.

Each arm, task and seed is a job in a folder of its own, so an interrupted ablation goes on where it was, and arms,
tasks and seeds can be added to one that is finished.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from selftaught._version import __version__
from selftaught.config import Config, LearnConfig
from selftaught.config_files import first_problem, merged, nested, parse_config, parse_override, read_toml
from selftaught.continual.jobs import (
    ADAPTER_FOLDER,
    MODEL_FOLDER,
    Event,
    Job,
    Suite,
    Watch,
    probe_suites,
    run_jobs,
    skill_suite,
)
from selftaught.continual.learn import run_folder
from selftaught.continual.sequential import thinned
from selftaught.data import data_hash
from selftaught.data.corpora import QUICKSTART_EVENTS, disasters
from selftaught.data.skills import build_skill
from selftaught.errors import ConfigError, TrainingError
from selftaught.recipes import recipe_file
from selftaught.types import Example

Task = Literal["knowledge", "tools", "science", "medical"]


def dotted(tree: Any, prefix: str = "") -> Any:
    """{"a": {"b": [1]}}, as TOML reads `a.b = [1]`, as {"a.b": [1]}; a table with a `low` is a value."""
    if not isinstance(tree, Mapping) or "low" in tree:
        return tree if not prefix else {prefix: tree}
    found: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}.{key}" if prefix else key
        found |= dotted(value, name) if isinstance(value, Mapping) else {name: value}
    return found


class Between(Config):
    """Any number between two, evenly in its logarithm if so wished."""

    low: int | float = Field(description="The least.")
    high: int | float = Field(description="The greatest; of two whole numbers, one is drawn.")
    log: bool = Field(False, description="Each ratio is as likely, not each difference.")

    @model_validator(mode="after")
    def _ordered(self) -> Between:
        if self.low > self.high or (self.log and self.low <= 0):
            raise ValueError("low must be at most high and, with log, above 0")
        return self

    def drawn(self, source: random.Random) -> int | float:
        """One of them, to three digits, or a whole one."""
        ends = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        value = source.uniform(*ends)
        value = math.exp(value) if self.log else value
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        return round(value) if whole else float(f"{value:.3g}")


Choice = Annotated[
    Annotated[list[Any], Field(min_length=1), Tag("values")] | Annotated[Between, Tag("between")],
    Discriminator(lambda value: "values" if isinstance(value, list) else "between"),
]


class RandomSearch(Config):
    """Arms drawn at random."""

    trials: int = Field(ge=1, description="How many arms.")
    seed: int = Field(0, ge=0, description="Of what is drawn, not of the runs.")
    options: dict[str, Choice] = Field(
        min_length=1, description="Of each setting, its values, or the two that it lies between."
    )

    @field_validator("options", mode="before")
    @classmethod
    def _dotted(cls, tree: Any) -> Any:
        return dotted(tree)


class AblateConfig(Config):
    """What is compared."""

    tasks: tuple[Task, ...] = Field(
        ("knowledge",),
        min_length=1,
        description='What is taught: "knowledge" is the quickstart\'s ten events, the others are the built-in skills.',
    )
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0,), min_length=1, description="One run of each arm each.")
    points: int = Field(3, ge=1, description="Evaluations of each run, the one at its end included.")
    probes_along: bool = Field(True, description="Ask the retention probes at each of them, not only at the end.")
    train_rows: int = Field(192, ge=1, description="Rows of a skill that are taught.")
    test_rows: int = Field(100, ge=1, description="Rows of a skill that are asked.")
    common: dict[str, Any] = Field({}, description="Configuration that all arms share.")
    arms: dict[str, dict[str, Any]] = Field({}, description="Named arms, each a configuration.")
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        {}, description="Of each setting its values; every combination is an arm."
    )
    random: RandomSearch | None = Field(None, description="Arms drawn at random.")

    @field_validator("grid", mode="before")
    @classmethod
    def _dotted(cls, tree: Any) -> Any:
        return dotted(tree)


def ablate_recipe(recipe: str | Path, overrides: Sequence[str] = ()) -> tuple[AblateConfig, dict[str, LearnConfig]]:
    """Reads a recipe: what is compared, and the configuration of each arm, the first being what others are held to.

    Args:
        recipe: a TOML file, or the name of a packaged one.
        overrides: changes to it: "seeds=[0,1,2]", "common.steps=20".

    Raises:
        ConfigError: it cannot be read, or holds a wrong value.
    """
    tree = read_toml(recipe_file(Path(recipe)))
    for override in overrides:
        tree = merged(tree, parse_override(override))
    try:
        config = AblateConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{recipe}: {first_problem(error, AblateConfig)}") from error
    if len(set(config.tasks)) < len(config.tasks) or len(set(config.seeds)) < len(config.seeds):
        raise ConfigError(f"{recipe}: name each task and each seed once")
    arms: dict[str, LearnConfig] = {}
    for name, settings in _arms(config):
        if name in arms:
            raise ConfigError(f"{recipe}: {name}: is there twice; name each arm once, each value once")
        changes: dict[str, Any] = dict(config.common)
        for key, value in settings.items():
            changes = merged(changes, nested(key, value))
        if "seed" in changes or "evaluate_every" in changes:
            raise ConfigError(f"{recipe}: {name}: set seeds and points instead of seed and evaluate_every")
        arms[name] = parse_config(changes, f"{recipe}: {name}")
        if not arms[name].probes:
            raise ConfigError(
                f"{recipe}: {name}: an ablation always measures what is forgotten; leave out probes=false"
            )
    if not arms:
        raise ConfigError(f"{recipe}: nothing to compare; give [arms.NAME] tables, a [grid], or a [random] search")
    return config, arms


def _arms(config: AblateConfig) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each arm's name and what it changes."""
    yield from config.arms.items()
    for values in itertools.product(*config.grid.values()) if config.grid else ():
        settings = dict(zip(config.grid, values, strict=True))
        yield _name(settings), settings
    if config.random is not None:
        source = random.Random(f"ablate/{config.random.seed}")
        drawn: dict[str, Mapping[str, Any]] = {}
        for _ in range(100 * config.random.trials):  # the same values may be drawn again
            settings = {
                key: choice.drawn(source) if isinstance(choice, Between) else source.choice(choice)
                for key, choice in config.random.options.items()
            }
            drawn.setdefault(_name(settings), settings)
            if len(drawn) == config.random.trials:
                break
        yield from drawn.items()


def _name(settings: Mapping[str, Any]) -> str:
    """What a drawn arm is called: "learning_rate=0.0001, anchor.rows=8"."""
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def ablate(
    recipe: str | Path,
    out: str | Path = "runs/ablate",
    model: str = "smollm2-135m",
    overrides: Sequence[str] = (),
    resume: bool = False,
    watch: Watch = lambda event: None,
    processes: int = 0,
) -> dict[str, Any]:
    """Teaches every task by every arm with every seed, and reports what each learned, forgot and cost.

    Args:
        recipe: a TOML file (see `AblateConfig`), or the name of a packaged one.
        out: folder for `report.html` and `report.json`; a run's model goes once it is measured.
        model: what to teach: an embedded name, a directory, or a hub id.
        overrides: changes to the recipe.
        resume: go on with an interrupted ablation in `out`, or add arms, tasks and seeds to it.
        watch: told what happens.
        processes: how many train together; 0 is one for each core that a batch has rows for.

    Returns:
        The report, as written to `out/report.json`; see docs/report.md.

    Raises:
        SelftaughtError: with one line that says what is wrong and how to mend it.
    """
    from selftaught.evaluation.scorers import SCORING
    from selftaught.models.resolve import resolve_model
    from selftaught.reports.ablation import compose_ablation, write_ablation

    config, arms = ablate_recipe(recipe, overrides)
    out, base = Path(out), str(resolve_model(model))
    request = {
        **{"model": model, "train_rows": config.train_rows, "test_rows": config.test_rows},
        **{"selftaught": __version__, "scoring": SCORING},
    }
    found: dict[str, dict[str, dict[int, dict[str, Any]]]] = {task: {} for task in config.tasks}
    not_run: dict[str, list[dict[str, Any]]] = {task: [] for task in config.tasks}
    bases: dict[str, dict[str, Any]] = {}

    def reported() -> dict[str, Any]:
        report = compose_ablation(bases, found, {name: arm.method for name, arm in arms.items()}, not_run)
        report["model"]["name"] = model
        write_ablation(report, out)
        return report

    with run_folder(out, request, resume):
        for task in config.tasks:
            rows, suites = _task(task, config, base)
            job = Job(f"base/{task}", f"base, {task}", base, None, suites=suites)
            (bases[task],) = run_jobs([(job, out / "base" / task)], watch, processes)
            for seed, name in itertools.product(config.seeds, arms):
                job = _job(task, name, arms[name], seed, base, rows, suites, config)
                ended = _done(job, out / _folder(job, data_hash(rows)), watch, processes)
                if isinstance(ended, str):
                    not_run[task].append({"arm": name, "seed": seed, "why": ended})
                    continue
                found[task].setdefault(name, {})[seed] = ended
                reported()
        if not any(found.values()):
            first = next(run for runs in not_run.values() for run in runs)
            raise TrainingError(
                f"{recipe}: no run came to an end; {first['arm']}, seed {first['seed']}: {first['why']}"
            )
        return reported()


def _done(job: Job, folder: Path, watch: Watch, processes: int) -> dict[str, Any] | str:
    """The record of a run, or why there is none."""
    assert job.config is not None
    if _needs_documents(job.config) and not any(row.context for row in job.examples):
        return "the task has no documents to train on"
    try:
        (record,) = run_jobs([(job, folder)], watch, processes)
    except TrainingError as error:  # a search may well try a rate at which nothing is learned
        watch(Event(job.name, "failed", {}))
        return str(error)
    for weights in (MODEL_FOLDER, ADAPTER_FOLDER):  # hundreds of megabytes each
        shutil.rmtree(folder / weights, ignore_errors=True)
    return record


def _needs_documents(settings: LearnConfig) -> bool:
    return settings.method == "cpt" or (settings.sft_documents and not settings.shows_teacher)


def _task(task: Task, config: AblateConfig, base: str) -> tuple[tuple[Example, ...], tuple[Suite, ...]]:
    """A task's rows, and what is asked: every group of questions, and the probes."""
    if task == "knowledge":
        rows = tuple(disasters(QUICKSTART_EVENTS))
        asked, limit = rows, 24  # tokens, as in the quickstart
    else:
        rows = thinned(build_skill(task), {"train_rows": config.train_rows, "test_rows": config.test_rows})
        suite = skill_suite(task, rows, base)
        asked = tuple(dataclasses.replace(example, group="test") for example in suite.examples)
        limit = suite.max_new_tokens
    return rows, (Suite(task, "skill", asked, limit), *probe_suites())


def _job(
    task: Task,
    name: str,
    settings: LearnConfig,
    seed: int,
    base: str,
    rows: tuple[Example, ...],
    suites: tuple[Suite, ...],
    config: AblateConfig,
) -> Job:
    taught = [row for row in rows if row.split == "train"]
    told = [] if settings.method == "cpt" else taught
    documents = {row.context for row in taught if row.context} if _needs_documents(settings) else set()
    knowledge = any(row.context for row in taught)
    steps = settings.resolve(max(1, len(told) + len(documents)), 1, knowledge).total_steps
    settings = settings.model_copy(update={"seed": seed, "evaluate_every": math.ceil(steps / config.points)})
    along = suites if config.probes_along else suites[:1]
    label = f"{name}, {task}, seed {seed}"
    return Job(f"{task}/{name}/{seed}", label, base, settings, rows, suites, along=along)


def _folder(job: Job, data: str) -> Path:
    """A run's folder follows from all that determines it, so that what an edited recipe left alone is kept."""
    assert job.config is not None
    key = json.dumps([job.config.model_dump(mode="json"), data, [suite.name for suite in job.along or ()]])
    return Path(job.name.split("/")[0]) / hashlib.sha256(key.encode()).hexdigest()[:16]


def job_labels(recipe: str | Path, overrides: Sequence[str] = ()) -> dict[str, str]:
    """What a progress display calls each job, in order."""
    config, arms = ablate_recipe(recipe, overrides)
    labels = {}
    for task in config.tasks:
        labels[f"base/{task}"] = f"base {task}"
        labels |= {f"{task}/{name}/{seed}": f"{task} {name} {seed}" for seed in config.seeds for name in arms}
    return labels
