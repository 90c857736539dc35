"""Teach and measure: check the lift, train, evaluate, and record what was gained and what was forgotten.

A *job* is one measured thing (the untouched base, an SFT run, an SDFT run, a stage of a sequence). It leaves a
folder with the model and a `run.json`; a job whose `run.json` is there is done, and is never done twice.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from selftaught.config import LearnConfig
from selftaught.files import read_json, recover_directory, write_json
from selftaught.processes import ALONE, ProcessGroup
from selftaught.runtime import release_memory
from selftaught.types import Example, ItemResult

RUN_FILE, MODEL_FOLDER, ADAPTER_FOLDER, CHECKPOINT_FOLDER = "run.json", "model", "adapter", "checkpoints"


NO_LENGTH = 64  # tokens of an answer where no row says how long one may be


@dataclass(frozen=True)
class Event:
    """Something that whoever watches may want to show.

    Attributes:
        job: which job it comes from.
        stage: what the job is doing ("training", "evaluating", …).
        values: of that stage; the fields of `train.loop.StepReport` while training.
    """

    job: str
    stage: str
    values: dict[str, Any]


Watch = Callable[[Event], None]


@dataclass(frozen=True)
class Suite:
    """Questions that are asked and scored together.

    Attributes:
        name: a skill's or a probe family's.
        kind: which of the two.
        examples: what is asked.
        max_new_tokens: longest answer.
        clusters: of each item's id, what it shares with other wordings of the same fact; None if each is by itself.
    """

    name: str
    kind: Literal["skill", "probe"]
    examples: tuple[Example, ...]
    max_new_tokens: int
    clusters: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Job:
    """One thing to do and to measure.

    Attributes:
        name: what events call it ("base", "sft", "sdft", …).
        label: how reports call it.
        model: what is taught (or, without a config, only measured).
        config: how it is taught; None measures the untouched model.
        examples: those of split "train" are taught.
        suites: what is asked at the end; None asks all examples, and the standard probes if the config says so.
        lift_config: check the lift first, with its templates.
        dtype: to measure an untouched model in, where there is no lift to check.
        origin: the model before it was taught anything: drift is measured from it, and self-distillation holds
            the student to it on general prompts; None is `model`, as it was.
        rehearse: of earlier skills; what the model now says to their prompts, it is held to.
        along: what is asked along the run, where the configuration evaluates it; None asks the validation rows where
            there are suites, else all examples but the paraphrases.
    """

    name: str
    label: str
    model: str
    config: LearnConfig | None
    examples: tuple[Example, ...] = ()
    suites: tuple[Suite, ...] | None = None
    lift_config: LearnConfig | None = None
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    origin: str | None = None
    rehearse: tuple[Example, ...] = ()
    along: tuple[Suite, ...] | None = None


def finished(folder: Path) -> dict[str, Any] | None:
    """The record of a job that is done, else None."""
    path = folder / RUN_FILE
    return dict(read_json(path)) if path.is_file() else None


def run_jobs(jobs: Sequence[tuple[Job, Path]], watch: Watch, processes: int) -> list[dict[str, Any]]:
    """Does jobs one after another, each by several processes.

    Args:
        jobs: each with its folder; a later one may teach what an earlier one leaves in its.
        watch: told what happens.
        processes: how many; 0 is one for each core that the batch has rows for.

    Returns:
        The jobs' records.
    """
    from selftaught.distributed import check_parallel, launched, working_group
    from selftaught.models.resolve import weight_bytes

    waiting = [(job, folder) for job, folder in jobs if finished(folder) is None]
    for job, _ in waiting:
        if job.config is not None:
            check_parallel(job.config.parallel, launched())
    batch = min([_rows_at_once(job) for job, _ in waiting], default=1)
    helped = working_group(processes, batch, weight_bytes(jobs[0][0].model), _assist, waiting) if waiting else None
    with helped or nullcontext(ALONE) as group:
        records = []
        for job, folder in jobs:
            records.append(run_job(job, folder, watch, group if (job, folder) in waiting else ALONE))
            watch(Event(job.name, "done", {}))
    return records


def _assist(waiting: Sequence[tuple[Job, Path]], group: ProcessGroup) -> None:
    for job, folder in waiting:
        run_job(job, folder, processes=group)


def _rows_at_once(job: Job) -> int:
    """How many processes a job has work for."""
    if job.config is None:
        return max([len(suite.examples) for suite in job.suites or ()] + [len(job.examples)])
    return min(job.config.batch_size, sum(example.split == "train" for example in job.examples))


def run_job(
    job: Job, folder: Path, watch: Watch = lambda event: None, processes: ProcessGroup = ALONE
) -> dict[str, Any]:
    """Does a job, or goes on with it where it was interrupted.

    Args:
        job: what to do.
        folder: where its model, checkpoints and record go; made if missing.
        watch: told what happens.
        processes: who do it together.

    Returns:
        The record, also written to `folder/run.json`: see docs/report.md.
    """
    record = processes.gather(finished(folder))[0]  # as the first process sees it
    if record is not None:
        if processes.first:
            shutil.rmtree(folder / CHECKPOINT_FOLDER, ignore_errors=True)  # it was killed before it could
        return record
    if processes.first:
        recover_directory(folder / MODEL_FOLDER)
    taught = job.config is not None and job.config.teaches
    record = _blank(job) | (_teach if taught else _measure_untaught)(job, folder, watch, processes)
    processes.wait()
    if processes.first:
        write_json(folder / RUN_FILE, record)
        shutil.rmtree(folder / CHECKPOINT_FOLDER, ignore_errors=True)  # several times the model's size, and done with
    release_memory()
    return record


def _measure_untaught(job: Job, folder: Path, watch: Watch, processes: ProcessGroup) -> dict[str, Any]:
    """The untouched base; or oracle retrieval, which is the base with each question's document in its prompt."""
    from selftaught.evaluation.drift import drift_nats, drift_reference
    from selftaught.evaluation.runner import check_lift
    from selftaught.models.load import load_model
    from selftaught.train.rows import prepare

    config = job.config or job.lift_config or LearnConfig(dtype=job.dtype)
    if job.config is not None:
        job = _shown_documents(job, config)
    reference = None
    if job.origin is not None:
        reference = drift_reference(load_model(job.origin, dtype=config.dtype), processes=processes)
    model = load_model(job.model, dtype=config.dtype)
    lift = None
    if job.lift_config is not None or job.config is not None:
        config, _ = prepare(job.examples, model, config)
    if job.lift_config is not None:
        watch(Event(job.name, "checking the lift", {}))
        lift = check_lift(model, job.examples, config.prompts, config.completion_limit, processes).as_dict()
        watch(Event(job.name, "lift", lift))
    return {
        "drift_nats": drift_nats(reference, model) if reference else 0.0 if config.probes else None,
        **_measure(job, model, config, watch, processes),
        "config": config.model_dump(mode="json") if job.config is not None else None,
        "lift": lift,
        "model": {
            "name": job.model,
            "path": str(model.path),
            "parameters": sum(p.numel() for p in model.model.parameters()),
            "dtype": str(model.dtype).removeprefix("torch."),
        },
    }


def _shown_documents(job: Job, config: LearnConfig) -> Job:
    """The job with documents in the questions; the probes have none."""
    from selftaught.prompts import with_document

    def shown(examples: Sequence[Example]) -> tuple[Example, ...]:
        return tuple(with_document(example, config.prompts) for example in examples)

    suites = job.suites and tuple(replace(suite, examples=shown(suite.examples)) for suite in job.suites)
    return replace(job, examples=shown(job.examples), suites=suites)


def _teach(job: Job, folder: Path, watch: Watch, processes: ProcessGroup) -> dict[str, Any]:
    from selftaught.evaluation.drift import drift_nats, drift_reference
    from selftaught.models.load import LanguageModel, load_model
    from selftaught.runtime import reset_peak_memory
    from selftaught.train.loop import Callbacks, save_model, train
    from selftaught.train.rows import prepare

    assert job.config is not None
    watch(Event(job.name, "loading the model", {}))
    reset_peak_memory()
    processes.shared_bytes = 0
    base = load_model(job.origin or job.model, dtype=job.config.dtype)
    config, _ = prepare(job.examples, base, job.config)
    reference = drift_reference(base, processes=processes) if config.probes else None
    del base
    release_memory()

    def on_evaluate(model: LanguageModel, step: int) -> dict[str, Any]:
        watch(Event(job.name, "evaluating", {"step": step}))
        drift = drift_nats(reference, model) if reference else None
        return _curve_point(job, model, config, drift, processes)

    watch(Event(job.name, "preparing to train", {}))  # the base writes its anchor's requests
    callbacks = Callbacks(lambda report: watch(Event(job.name, "training", asdict(report))), on_evaluate)
    checkpoints = folder / CHECKPOINT_FOLDER
    model, record = train(job.model, job.examples, config, checkpoints, callbacks, processes, job.rehearse, job.origin)
    watch(Event(job.name, "saving the model", {}))
    if config.weights.kind == "lora":  # the adapter goes into a folder of its own; the model has it merged in
        if processes.first:
            save_model(model, folder / ADAPTER_FOLDER, config)
            save_model(load_model(folder / ADAPTER_FOLDER, dtype=config.dtype), folder / MODEL_FOLDER, config)
        processes.wait()
        model = load_model(folder / MODEL_FOLDER, dtype=config.dtype)
    elif processes.first:
        save_model(model, folder / MODEL_FOLDER, config)
    measured = _measure(job, model, config, watch, processes)
    watch(Event(job.name, "measuring", {"what": "drift"}))
    drift = drift_nats(reference, model) if reference is not None else None
    steps = record.stopped["kept"] if record.stopped else config.total_steps
    last: dict[str, Any] = {"step": steps, "seconds": round(record.seconds, 2), "drift_nats": drift}
    for what in ("accuracy", "probes"):
        last[what] = {group: share["value"] for group, share in measured[what].items()}
    return {
        **measured,
        "drift_nats": drift,
        "model_dir": str(folder / MODEL_FOLDER),
        "config": config.model_dump(mode="json"),
        "steps": steps,
        "stopped": record.stopped,
        "seconds": record.seconds,
        "tokens": record.tokens,
        "processes": processes.size,
        "peak_memory_gib": record.peak_memory_gib,
        "curve": [*record.curve, last],
        "loss": record.steps,
    }


def _blank(job: Job) -> dict[str, Any]:
    return {
        "name": job.name,
        "label": job.label,
        "method": job.config.method if job.config else None,
        "model_dir": None,
        "config": None,
        "steps": None,
        "stopped": None,
        "seconds": None,
        "tokens": None,
        "processes": None,
        "peak_memory_gib": None,
        "curve": [],
        "loss": [],
    }


def _curve_point(
    job: Job, model: Any, config: LearnConfig, drift: float | None, processes: ProcessGroup
) -> dict[str, Any]:
    """Accuracy and drift at some point of a run."""
    from selftaught.evaluation.runner import accuracy_by_group, evaluate

    along = job.along
    if along is None:
        whole = job.suites is None
        asked = [row for row in job.examples if (row.group != "paraphrase" if whole else row.split == "validation")]
        along = (Suite("answers", "skill", tuple(asked), config.completion_limit),)
    shares: dict[str, dict[str, float]] = {"skill": {}, "probe": {}}
    for suite in along:
        found = accuracy_by_group(evaluate(model, suite.examples, suite.max_new_tokens, processes=processes))
        shares[suite.kind] |= {group: share["value"] for group, share in found.items()}
    probes = {"probes": shares["probe"]} if shares["probe"] else {}
    return {"accuracy": shares["skill"], **probes, "drift_nats": drift}


def _measure(job: Job, model: Any, config: LearnConfig, watch: Watch, processes: ProcessGroup) -> dict[str, Any]:
    """Every answer to every suite, and the accuracies."""
    from selftaught.evaluation.runner import accuracy_by_group, evaluate

    if job.suites is not None:
        suites = job.suites
    else:
        own = Suite("answers", "skill", job.examples, config.completion_limit)
        suites = (own, *(probe_suites() if config.probes else ()))
    results: dict[str, list[ItemResult]] = {"skill": [], "probe": []}
    by_suite = {}
    for suite in suites:
        watch(Event(job.name, "measuring", {"what": suite.name if suite.kind == "skill" else f"probe: {suite.name}"}))
        found = evaluate(model, suite.examples, suite.max_new_tokens, processes=processes)
        results[suite.kind] += found
        by_suite[suite.name] = {"kind": suite.kind, "results": [asdict(result) for result in found]}
    measured: dict[str, Any] = {
        "accuracy": accuracy_by_group(results["skill"]),
        "probes": accuracy_by_group(results["probe"]),
    }
    if job.suites is not None:
        return {**measured, "suites": by_suite}
    return {
        **measured,
        "results": [asdict(result) for result in results["skill"]],
        "probe_results": [asdict(result) for result in results["probe"]],
    }


def probe_suites(bank: bool = False) -> tuple[Suite, ...]:
    """The standard probes, or the gate's bank, which begins with them; a suite a family."""
    from selftaught.evaluation.probes import FAMILIES, probe_bank, probe_family

    families = [(probe_bank if bank else probe_family)(name) for name in FAMILIES]
    return tuple(
        Suite(family.name, "probe", family.examples, family.max_new_tokens, family.clusters) for family in families
    )


def skill_suite(name: str, examples: Sequence[Example], model: str | Path) -> Suite:
    """A skill's test rows; an answer may be half as long again as the longest demonstration or accepted answer.

    Args:
        name: the skill's.
        examples: its rows, of all splits.
        model: a directory, whose tokenizer counts.
    """
    from selftaught.models.load import load_tokenizer

    tokenizer = load_tokenizer(Path(model))
    lengths = [
        len(tokenizer(text)["input_ids"]) for row in examples for text in (row.demonstration, *row.answers) if text
    ]
    longest = max(lengths, default=NO_LENGTH)
    asked = tuple(row for row in examples if row.split == "test")
    return Suite(name, "skill", asked, math.ceil(1.5 * (longest + 1)))
