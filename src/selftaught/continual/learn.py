"""One run outside a workspace: a data set taught to a model, with a report beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selftaught.config import METHOD_LABELS, LearnConfig
from selftaught.continual.jobs import Job, Watch, run_jobs
from selftaught.errors import ArtifactError, ConfigError
from selftaught.files import locked, read_json, write_json
from selftaught.types import Example

REQUEST_FILE = "request.json"
STORE = "documents"  # what was read of documents


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
    _check_is_folder(out)
    with locked(out):
        if check_request(out, request, resume):
            write_json(out / REQUEST_FILE, request)
        yield


def _check_is_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ArtifactError(f"{out}: is a file, not a folder; choose another --out")


def run_request(model: str, digest: str, config: LearnConfig) -> dict[str, Any]:
    """What determines a run's result: the model's name, the data's hash, the configuration."""
    return {"model": model, "data": digest, "config": config.model_dump(mode="json")}


def check_request(out: Path, request: dict[str, Any], resume: bool) -> bool:
    """Whether a run is a new one, and not what is in its folder already; see `run_folder`."""
    _check_is_folder(out)
    path = out / REQUEST_FILE
    found = {entry.name for entry in out.iterdir() if not entry.name.startswith(".")} if out.exists() else set()
    # Nothing has been done yet, or the last try ended at once on a wrong model or wrong data. What was read of
    # documents is told by its content, so that any run may use it.
    if not found or (path.name in found and found <= {path.name, STORE}):
        return True
    if path.name not in found:
        raise ArtifactError(f"{out}: is not empty and holds no run of ours; choose another --out")
    if not resume:
        raise ArtifactError(f"{out}: already holds a run; add --resume to go on with it, or choose another --out")
    before = read_json(path)
    changed = [key for key in request if before.get(key) != request[key]]
    if changed:
        raise ConfigError(
            f"{out}: holds another run (different {changed[0]}); choose another --out, or ask for the same"
        )
    return False


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
        out: folder for the taught model (`out/model`), the adapter that was merged into it (`out/adapter`),
            `report.html` and `report.json`.
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

    config, model = config or LearnConfig(), str(model)
    examples = load_examples(data) if isinstance(data, (str, Path)) else list(data)
    check_scorers(examples)
    digest, out = data_hash(examples), Path(out)
    name = Path(data).name if isinstance(data, (str, Path)) else "examples"
    with run_folder(out, run_request(model, digest, config), resume):
        return taught_and_reported(examples, name, model, out, config, watch, processes)


def taught_and_reported(
    examples: Sequence[Example],
    name: str,
    model: str,
    out: Path,
    config: LearnConfig,
    watch: Watch,
    processes: int,
    beside: Sequence[LearnConfig] = (),
    more: Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Any]] = lambda records: {},
) -> dict[str, Any]:
    """What `learn` does within its folder.

    Args:
        examples: of all splits.
        name: what the report calls them.
        model: what to teach.
        out: the run's folder.
        config: how.
        watch: told what happens.
        processes: how many train it together.
        beside: other methods that are taught and asked the same, each in a folder of its name.
        more: what the report is to hold besides, given the jobs' records.
    """
    from selftaught.data import data_hash
    from selftaught.models.resolve import resolve_model
    from selftaught.reports import write_report
    from selftaught.reports.compose import compose_report

    path = str(resolve_model(model))  # once, before several processes ask for it
    rows = tuple(examples)
    base = (Job("base", "base", path, None, rows, lift_config=config), out / "base")
    taught = (Job(config.method, METHOD_LABELS[config.method], path, config, rows), out)
    others = [(Job(one.method, METHOD_LABELS[one.method], path, one, rows), out / one.method) for one in beside]
    records = run_jobs([base, *others, taught], watch, processes)
    records[0]["model"]["name"] = model
    report = compose_report("learn", f"Teaching {name} to {model}", name, data_hash(rows), rows, records)
    report |= more(records)
    write_report(report, out)
    return report
