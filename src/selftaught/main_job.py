"""The main job: teach the default model invented facts by SDFT, and by SFT beside it.

Jobs run in lanes, a process each, side by side: one thread a process wastes less than several threads
in one. A lane that dies ends the others; what was finished stays, and `resume` goes on from there.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from selftaught.config import LearnConfig, merged, parse_config, parse_override, tomllib
from selftaught.continual import Event, Job, Watch, finished, run_folder, run_job
from selftaught.data import data_hash
from selftaught.data.corpora import QUICKSTART_EVENTS, disasters
from selftaught.errors import ConfigError, SelftaughtError, TrainingError
from selftaught.reports.compose import compose_report, drift_at_accuracy
from selftaught.runtime import memory_gib, num_cores, prepare
from selftaught.types import Example

LABELS = {"base": "base", "sft": "SFT", "sft_documents": "SFT + articles", "sdft": "SDFT"}
LANE_GIB = 5.5  # memory that a lane may take; a machine with less than all lanes need runs the jobs in one
LANES = (("base", "sdft"), ("sft", "sft_documents"))  # about equal work; the lift is known before SDFT begins


def quickstart_configs(overrides: Sequence[str] = ()) -> dict[str, LearnConfig]:
    """The configuration of each method, from the packaged recipe, with overrides like "sdft.epochs=5"."""
    tree = tomllib.loads(files("selftaught.recipes").joinpath("quickstart.toml").read_text(encoding="utf-8"))
    known = tuple(tree)
    for override in overrides:
        tree = merged(tree, parse_override(override))
    unknown = [name for name in tree if name not in known or not isinstance(tree[name], dict)]
    if unknown:
        names = ", ".join(known)
        raise ConfigError(f"unknown method {unknown[0]!r}; begin the override with one of {names}: sdft.epochs=5")
    return {name: parse_config(table, f"quickstart.{name}") for name, table in tree.items()}


def quickstart(
    model: str = "smollm2-135m",
    out: str | Path = "runs/quickstart",
    resume: bool = False,
    overrides: Sequence[str] = (),
    events: Sequence[str] = QUICKSTART_EVENTS,
    watch: Watch = lambda event: None,
) -> dict[str, Any]:
    """Teaches, compares and reports.

    Args:
        model: what to teach.
        out: folder for models, `report.html` and `report.json`.
        resume: go on with an interrupted quickstart in `out`.
        overrides: changes to the recipe, by method: "sdft.learning_rate=1e-4".
        events: which events of the corpus.
        watch: told what happens.

    Returns:
        The report, as written to `out/report.json`.

    Raises:
        SelftaughtError: with one line that says what is wrong and how to mend it.
    """
    from selftaught.models.resolve import resolve_model
    from selftaught.reports import write_report

    out, configs, examples = Path(out), quickstart_configs(overrides), disasters(tuple(events))
    request: dict[str, Any] = {
        "model": model,
        "data": data_hash(examples),
        "config": {name: config.model_dump(mode="json") for name, config in configs.items()},
    }
    with run_folder(out, request, resume):
        watch(Event("base", "finding the model", {}))
        path = str(resolve_model(model))
        jobs = {"base": Job("base", LABELS["base"], path, None, lift_config=configs["sdft"])}
        jobs |= {name: Job(name, LABELS[name], path, config) for name, config in configs.items()}
        roomy = num_cores() >= len(LANES) and memory_gib() >= LANE_GIB * len(LANES)
        lanes = [[jobs[name] for name in lane] for lane in LANES] if roomy else [list(jobs.values())]
        _run_lanes(lanes, examples, out, watch)
        records = [finished(out / name) for name in LABELS]
        done = [record for record in records if record is not None]
        done[0]["model"]["name"] = model
        title = f"Teaching {len(events)} disasters of 2025 to {model}"
        report = compose_report(
            "quickstart", title, "2025 natural disasters", request["data"], examples, done, checks(done), len(lanes)
        )
        write_report(report, out)
    return report


def checks(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the quickstart sets out to show, and whether it did."""
    base, sft, _, sdft = records
    level = min(max(point["accuracy"]["direct"] for point in run["curve"]) for run in (sft, sdft))
    ours, theirs = drift_at_accuracy(sdft, level), drift_at_accuracy(sft, level)
    direct, indirect = sdft["accuracy"]["direct"]["value"], sdft["accuracy"]["indirect"]["value"]
    sft_indirect = sft["accuracy"]["indirect"]["value"]
    known = base["accuracy"]["direct"]["value"]
    rows = [
        ("The base does not know the facts: its direct accuracy", "≤ 5%", f"{known:.1%}", known <= 0.05),
        ("SDFT's direct accuracy", "≥ 85%", f"{direct:.1%}", direct >= 0.85),
        ("SDFT's indirect accuracy", f"above SFT's {sft_indirect:.1%}", f"{indirect:.1%}", indirect > sft_indirect),
    ]
    if ours is not None and theirs:  # else drift was turned off
        ratio = ours / theirs
        rows.append(
            (f"SDFT's drift, as a part of SFT's, at {level:.0%} direct accuracy", "≤ 0.5", f"{ratio:.2f}", ratio <= 0.5)
        )
    falls = {name: base["probes"][name]["value"] - share["value"] for name, share in sdft["probes"].items()}
    if falls:  # else the probes were turned off
        worst = max(falls, key=lambda name: falls[name])
        fall = falls[worst]
        rows.append(
            (f"Largest fall of a probe family ({worst})", "≤ 3 points", f"{100 * fall:.1f} points", fall <= 0.03)
        )
    return [{"name": name, "target": target, "value": value, "met": bool(met)} for name, target, value, met in rows]


# --------------------------------------------------------------------------------------------- lanes


def _run_lanes(lanes: Sequence[Sequence[Job]], examples: list[Example], out: Path, watch: Watch) -> None:
    """Runs each lane's jobs in order, lanes side by side; raises the first error of any."""
    context = multiprocessing.get_context("spawn")
    messages: Any = context.Queue()
    threads = max(1, num_cores() // len(lanes))
    processes = []
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read by torch when a lane starts
    main = threading.current_thread() is threading.main_thread()  # elsewhere no signal can be handled
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None  # lanes inherit it: Ctrl-C is ours alone
    try:
        for lane in lanes:
            process = context.Process(target=_lane, args=(list(lane), examples, out, messages), daemon=True)
            process.start()
            processes.append(process)
    finally:
        _restore("OMP_NUM_THREADS", before)
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
    try:
        running = len(processes)
        while running:
            running -= _pass_on(messages, processes, watch)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _pass_on(messages: Any, processes: Sequence[Any], watch: Watch) -> int:
    """Hands one message to the watcher; 1 when it says that a lane is done."""
    dead = next((process.exitcode for process in processes if process.exitcode not in (None, 0)), None)
    if dead is not None:
        reason = "was killed, perhaps for lack of memory" if dead == -9 else f"ended unexpectedly with exit code {dead}"
        raise TrainingError(
            f"a training process {reason}; what is done is kept: run the same command again with --resume"
        )
    try:
        message = messages.get(timeout=1.0)
    except queue.Empty:
        return 0
    if isinstance(message, SelftaughtError):
        raise message
    if message is None:
        return 1
    watch(message)
    return 0


def _lane(jobs: list[Job], examples: list[Example], out: Path, messages: Any) -> None:
    threading.Thread(target=_die_with_parent, daemon=True).start()
    prepare()
    try:
        for job in jobs:
            run_job(job, examples, out / job.name, messages.put)
            messages.put(Event(job.name, "done", {}))
    except SelftaughtError as error:
        messages.put(error)
        return
    messages.put(None)


def _die_with_parent() -> None:
    """Ends this process when the one that began it is gone, killed perhaps: nobody would hear of its work."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _restore(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
