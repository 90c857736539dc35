"""Teach and measure: check the lift, train, evaluate, and record what was gained and what was forgotten.

A *job* is one measured thing (the untouched base, an SFT run, an SDFT run). It leaves a folder with the
model and a `run.json`; a job whose `run.json` is there is done, and is never done twice.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from selftaught.config import LearnConfig
from selftaught.errors import ArtifactError, ConfigError
from selftaught.files import locked, read_json, recover_directory, write_json
from selftaught.processes import ALONE, ProcessGroup
from selftaught.runtime import release_memory
from selftaught.types import Example, ItemResult

RUN_FILE, MODEL_FOLDER, CHECKPOINT_FOLDER = "run.json", "model", "checkpoints"


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
class Job:
    """One thing to do and to measure.

    Attributes:
        name: its folder's name ("base", "sft", "sft_documents", "sdft").
        label: how reports call it.
        model: what is taught (or, without a config, only measured).
        config: how it is taught; None measures the untouched model, and checks the lift.
        lift_config: whose templates the lift is checked with.
    """

    name: str
    label: str
    model: str
    config: LearnConfig | None
    lift_config: LearnConfig | None = None


def finished(folder: Path) -> dict[str, Any] | None:
    """The record of a job that is done, else None."""
    path = folder / RUN_FILE
    return dict(read_json(path)) if path.is_file() else None


def run_jobs(
    jobs: Sequence[tuple[Job, Path]], examples: Sequence[Example], watch: Watch, processes: int
) -> list[dict[str, Any]]:
    """Does jobs one after another, each by several processes.

    Args:
        jobs: each with its folder.
        examples: rows to teach and to ask.
        watch: told what happens.
        processes: how many; 0 is one for each core that the batch has rows for.

    Returns:
        The jobs' records.
    """
    from selftaught.models.resolve import weight_bytes
    from selftaught.processes import num_processes, process_group

    batch = min([job.config.batch_size for job, _ in jobs if job.config] or [LearnConfig().batch_size])
    batch = min(batch, sum(example.split == "train" for example in examples))
    waiting = [(job, folder) for job, folder in jobs if finished(folder) is None]
    size = num_processes(processes, batch, weight_bytes(jobs[0][0].model)) if waiting else 1
    with process_group(size, _assist, waiting, examples) as group:
        records = []
        for job, folder in jobs:
            records.append(run_job(job, examples, folder, watch, group if (job, folder) in waiting else ALONE))
            watch(Event(job.name, "done", {}))
    return records


def _assist(waiting: Sequence[tuple[Job, Path]], examples: Sequence[Example], group: ProcessGroup) -> None:
    for job, folder in waiting:
        run_job(job, examples, folder, processes=group)


def run_job(
    job: Job,
    examples: Sequence[Example],
    folder: Path,
    watch: Watch = lambda event: None,
    processes: ProcessGroup = ALONE,
) -> dict[str, Any]:
    """Does a job, or goes on with it where it was interrupted.

    Args:
        job: what to do.
        examples: rows to teach and to ask.
        folder: where its model, checkpoints and record go; made if missing.
        watch: told what happens.
        processes: who do it together.

    Returns:
        The record, also written to `folder/run.json`: see docs/report.md.
    """
    record = processes.gather(finished(folder))[0]  # as the first process sees it
    if record is not None:
        return record
    if processes.first:
        recover_directory(folder / MODEL_FOLDER)
    if job.config is None:
        record = _measure_base(job, examples, watch, processes)
    else:
        record = _teach(job, examples, folder, watch, processes)
    processes.wait()
    if processes.first:
        write_json(folder / RUN_FILE, record)
        shutil.rmtree(folder / CHECKPOINT_FOLDER, ignore_errors=True)  # several times the model's size, and done with
    release_memory()
    return record


def _measure_base(job: Job, examples: Sequence[Example], watch: Watch, processes: ProcessGroup) -> dict[str, Any]:
    from selftaught.evaluation.runner import check_lift
    from selftaught.models.load import load_model
    from selftaught.train.rows import prepare

    config = job.lift_config or LearnConfig()
    model = load_model(job.model, dtype=config.dtype)
    config, _ = prepare(examples, model, config)
    watch(Event(job.name, "checking the lift", {}))
    lift = check_lift(model, examples, config.prompts, config.completion_limit, processes)
    watch(Event(job.name, "lift", lift.as_dict()))
    measured = _measure(job, model, examples, config, None, watch, processes)
    return {
        **_blank(job),
        **measured,
        "lift": lift.as_dict(),
        "drift_nats": 0.0 if config.probes else None,
        "model": {
            "name": job.model,
            "path": str(model.path),
            "parameters": sum(p.numel() for p in model.model.parameters()),
            "dtype": str(model.dtype).removeprefix("torch."),
        },
    }


def _teach(
    job: Job, examples: Sequence[Example], folder: Path, watch: Watch, processes: ProcessGroup
) -> dict[str, Any]:
    from selftaught.evaluation.drift import drift_nats, drift_reference
    from selftaught.models.load import LanguageModel, load_model
    from selftaught.runtime import reset_peak_memory
    from selftaught.train.loop import Callbacks, save_model, train
    from selftaught.train.rows import prepare

    assert job.config is not None
    watch(Event(job.name, "loading the model", {}))
    reset_peak_memory()
    processes.shared_bytes = 0
    base = load_model(job.model, dtype=job.config.dtype)
    config, _ = prepare(examples, base, job.config)
    reference = drift_reference(base, processes=processes) if config.probes else None
    del base
    release_memory()

    def on_evaluate(model: LanguageModel, step: int) -> dict[str, Any]:
        watch(Event(job.name, "evaluating", {"step": step}))
        drift = drift_nats(reference, model) if reference else None
        return _curve_point(model, examples, config, drift, processes)

    watch(Event(job.name, "training", {}))
    callbacks = Callbacks(lambda report: watch(Event(job.name, "training", asdict(report))), on_evaluate)
    model, record = train(job.model, examples, config, folder / CHECKPOINT_FOLDER, callbacks, processes)
    watch(Event(job.name, "saving the model", {}))
    if processes.first:
        save_model(model, folder / MODEL_FOLDER, config)
    measured = _measure(job, model, examples, config, reference, watch, processes)
    last = {"step": config.total_steps, "seconds": round(record.seconds, 2), "drift_nats": measured["drift_nats"]}
    last["accuracy"] = {group: share["value"] for group, share in measured["accuracy"].items()}
    return {
        **_blank(job),
        **measured,
        "model_dir": str(folder / MODEL_FOLDER),
        "config": config.model_dump(mode="json"),
        "steps": config.total_steps,
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
        "seconds": None,
        "tokens": None,
        "processes": None,
        "peak_memory_gib": None,
        "curve": [],
        "loss": [],
    }


def _curve_point(
    model: Any, examples: Sequence[Example], config: LearnConfig, drift: float | None, processes: ProcessGroup
) -> dict[str, Any]:
    """Accuracy (without the paraphrases, to keep it short) and drift at some point of a run."""
    from selftaught.evaluation.runner import accuracy_by_group, evaluate

    asked = [example for example in examples if example.group != "paraphrase"]
    shares = accuracy_by_group(evaluate(model, asked, config.completion_limit, processes=processes))
    return {"accuracy": {group: share["value"] for group, share in shares.items()}, "drift_nats": drift}


def _measure(
    job: Job,
    model: Any,
    examples: Sequence[Example],
    config: LearnConfig,
    reference: Any,
    watch: Watch,
    processes: ProcessGroup,
) -> dict[str, Any]:
    """Accuracy on the data and on the probes, drift, and every answer."""
    from selftaught.evaluation.drift import drift_nats
    from selftaught.evaluation.probes import FAMILIES, probe_family
    from selftaught.evaluation.runner import accuracy_by_group, evaluate

    def tell(what: str) -> None:
        watch(Event(job.name, "measuring", {"what": what}))

    tell("answers")
    results = evaluate(model, examples, config.completion_limit, processes=processes)
    probe_results: list[ItemResult] = []
    for name in FAMILIES if config.probes else ():
        tell(f"probe: {name}")
        family = probe_family(name)
        probe_results += evaluate(model, family.examples, family.max_new_tokens, processes=processes)
    tell("drift")
    return {
        "accuracy": accuracy_by_group(results),
        "probes": accuracy_by_group(probe_results),
        "drift_nats": drift_nats(reference, model) if reference is not None else None,
        "results": [asdict(result) for result in results],
        "probe_results": [asdict(result) for result in probe_results],
    }


# ------------------------------------------------------------------------------------------ one run


@contextmanager
def run_folder(out: Path, request: dict[str, Any], resume: bool) -> Iterator[None]:
    """Makes a run's folder, or checks that the run in it is the one that is asked for; others are kept out meanwhile.

    Args:
        out: the run's folder.
        request: what determines the result: model, data hash, configuration.
        resume: go on with the run in `out`.

    Raises:
        ArtifactError: there is a run in it and `resume` is not set, or another process is at work in it.
        ConfigError: there is another run in it.
    """
    if out.exists() and not out.is_dir():
        raise ArtifactError(f"{out}: is a file, not a folder; choose another --out")
    with locked(out):
        _check_request(out, request, resume)
        yield


def _check_request(out: Path, request: dict[str, Any], resume: bool) -> None:
    path = out / "request.json"
    found = {entry.name for entry in out.iterdir() if not entry.name.startswith(".")}
    if found <= {path.name}:  # nothing has been done yet, or the last try ended at once on a wrong model or wrong data
        write_json(path, request)
        return
    if path.name not in found:
        raise ArtifactError(f"{out}: is not empty and holds no run of ours; choose another --out")
    if not resume:
        raise ArtifactError(f"{out}: already holds a run; add --resume to go on with it, or choose another --out")
    before = read_json(path)
    changed = [key for key in request if before.get(key) != request[key]]
    if changed:
        raise ConfigError(f"{out}: holds a run with another {changed[0]}; choose another --out, or ask for the same")


def learn(
    data: str | Path | Sequence[Example],
    model: str = "smollm2-135m",
    out: str | Path = "runs/learn",
    config: LearnConfig | None = None,
    resume: bool = False,
    watch: Watch = lambda event: None,
    processes: int = 0,
) -> dict[str, Any]:
    """Teaches a model from demonstrations and measures what that gained and cost.

    Args:
        data: a file, a hub data set, or examples; rows of split "test" are only asked.
        model: what to teach: an embedded name, a directory, or a hub id.
        out: folder for the taught model (`out/model`), `report.html` and `report.json`.
        config: how; the class defaults are the vetted setting.
        resume: go on with an interrupted run in `out`.
        watch: told what happens.
        processes: how many train it together; 0 is one for each core that a batch has rows for.

    Returns:
        The report, as written to `out/report.json`; see docs/report.md.

    Raises:
        SelftaughtError: with one line that says what is wrong and how to mend it.
    """
    from selftaught.data import data_hash, load_examples
    from selftaught.evaluation.scorers import check_scorers
    from selftaught.models.resolve import resolve_model
    from selftaught.reports import write_report
    from selftaught.reports.compose import compose_report

    config, model = config or LearnConfig(), str(model)
    examples = load_examples(data) if isinstance(data, (str, Path)) else list(data)
    check_scorers(examples)
    digest, out = data_hash(examples), Path(out)
    with run_folder(out, {"model": model, "data": digest, "config": config.model_dump(mode="json")}, resume):
        path = str(resolve_model(model))  # once, before several processes ask for it
        base = (Job("base", "base", path, None, lift_config=config), out / "base")
        taught = (Job(config.method, config.method.upper(), path, config), out)
        records = run_jobs([base, taught], examples, watch, processes)
        records[0]["model"]["name"] = model
        name = Path(data).name if isinstance(data, (str, Path)) else "examples"
        report = compose_report("learn", f"Teaching {name} to {model}", name, digest, examples, records)
        write_report(report, out)
    return report
