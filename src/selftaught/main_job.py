"""The main job: teach the default model invented facts by SDFT, and by SFT beside it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from selftaught.config import LearnConfig
from selftaught.config_files import merged, parse_config, parse_override, tomllib
from selftaught.continual import Event, Job, Watch, run_folder, run_jobs
from selftaught.data import data_hash
from selftaught.data.corpora import QUICKSTART_EVENTS, disasters
from selftaught.errors import ConfigError
from selftaught.reports.compose import compose_report, drift_at_accuracy

LABELS = {"base": "base", "sft": "SFT", "sft_documents": "SFT + articles", "sdft": "SDFT"}


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
    processes: int = 0,
) -> dict[str, Any]:
    """Teaches, compares and reports.

    Args:
        model: what to teach.
        out: folder for models, `report.html` and `report.json`.
        resume: go on with an interrupted quickstart in `out`.
        overrides: changes to the recipe, by method: "sdft.learning_rate=1e-4".
        events: which events of the corpus.
        watch: told what happens.
        processes: how many train together; 0 is one for each core that a batch has rows for.

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
        rows = tuple(examples)
        jobs = {"base": Job("base", LABELS["base"], path, None, rows, lift_config=configs["sdft"])}
        jobs |= {name: Job(name, LABELS[name], path, config, rows) for name, config in configs.items()}
        done = run_jobs([(jobs[name], out / name) for name in LABELS], watch, processes)
        done[0]["model"]["name"] = model
        title = f"Teaching {len(events)} disasters of 2025 to {model}"
        report = compose_report(
            "quickstart", title, "2025 natural disasters", request["data"], examples, done, checks(done)
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
