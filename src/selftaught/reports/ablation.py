"""An ablation as one report: for each task, what every arm learned, forgot and cost, and how it differs from the first.

* accuracy of a group of questions, and of a probe family: the mean over seeds, with the pigeonhole bootstrap's
  interval (`resampling`); differences are paired, item by item and seed by seed;
* drift: the mean over seeds with Student's t interval;
* curve: the same at the moments at which a run was evaluated, without intervals;
* seconds to a level: when the mean curve of accuracy first reaches it, between two evaluations in a straight line;
* front: the arms than which no other has both more accuracy and less drift, at any moment of their runs.

See docs/report.md for the result.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from selftaught._version import __version__
from selftaught.errors import DataError
from selftaught.reports.compose import machine

Record = Mapping[str, Any]
Runs = Mapping[str, Mapping[int, Record]]

LEVELS = (0.5, 0.85)


def compose_ablation(
    bases: Mapping[str, Record],
    tasks: Mapping[str, Runs],
    methods: Mapping[str, str],
    not_run: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> dict[str, Any]:
    """A report of arms that were taught the same tasks with the same seeds.

    Args:
        bases: of each task, the untaught model's record, with its answers by suite.
        tasks: of each task, arm and seed, the run's record. Tasks without any run yet are left out; an arm is
            reported over the seeds that it and the first arm have both finished.
        methods: of each arm.
        not_run: of each task, the runs that could not be done: each {"arm", "seed", "why"}.

    Raises:
        DataError: (a ValueError) a run was asked other items than the base.
    """
    shown = {
        task: _task(bases[task], runs, methods) | {"not_run": [*(not_run or {}).get(task, ())]}
        for task, runs in tasks.items()
        if runs
    }
    records = [record for runs in tasks.values() for seeds in runs.values() for record in seeds.values()]
    return {
        "schema": 1,
        "kind": "ablation",
        "created": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "selftaught": __version__,
        "title": "What makes it learn, and what makes it forget",
        "model": dict(next(iter(bases.values()))["model"]),
        "machine": machine(max(record.get("processes") or 1 for record in records)),
        "levels": list(LEVELS),
        "tasks": shown,
    }


def main_group(groups: Sequence[str]) -> str:
    """The group that stands for what was taught."""
    return "direct" if "direct" in groups else groups[0]


def _task(base: Record, runs: Runs, methods: Mapping[str, str]) -> dict[str, Any]:
    from selftaught.reports import resampling

    before = _answers(base)
    groups = list(base["accuracy"])
    families = list(base["probes"])
    reference = next(iter(runs))
    arms, differences, points = [], [], {}
    for name, seeds in runs.items():
        shared = [seed for seed in seeds if seed in runs[reference]]
        if not shared:
            continue
        pair = {arm: {seed: [_checked(before, runs[arm][seed], arm)] for seed in shared} for arm in (reference, name)}
        draws = resampling.draw(before, pair, {suite: range(len(items)) for suite, items in before.items()})
        first, after = (
            {suite: draws.over_seeds(arm, draws.stages[arm][suite])[:, 0] for suite in before}
            for arm in (reference, name)
        )
        curve = _curve(base, [seeds[seed] for seed in shared])
        points[name] = [(at["drift_nats"], at["accuracy"][main_group(groups)]) for at in curve]
        taught = {seed: seeds[seed] for seed in shared}
        arms.append(
            {"name": name, "label": name, "method": methods[name], **_arm(taught, after, curve, groups, families)}
        )
        if name != reference:
            changes = {
                "accuracy": {group: resampling.estimate(after[group] - first[group]) for group in groups},
                "probe_mean": resampling.estimate(_mean(after, families) - _mean(first, families))
                if families
                else None,
                "drift_ratio": _ratio(list(taught.values()), [runs[reference][seed] for seed in shared]),
            }
            differences.append({"arm": name, "reference": reference, **changes})
    plain = {name: {**share, "label": name} for name, share in base["accuracy"].items()}
    return {
        "groups": groups,
        "families": families,
        "main_group": main_group(groups),
        "items": {suite: len(items) for suite, items in before.items()},
        "base": {"name": "base", "label": "base", "method": None, "accuracy": plain, "probes": dict(base["probes"])},
        "reference": reference,
        "arms": arms,
        "differences": differences,
        "front": _front(points),
    }


def _arm(
    taught: Mapping[int, Record],
    after: Mapping[str, Any],
    curve: Sequence[Mapping[str, Any]],
    groups: Sequence[str],
    families: Sequence[str],
) -> dict[str, Any]:
    """What an arm learned, forgot and cost, over its seeds."""
    from selftaught.reports import resampling

    records = list(taught.values())
    return {
        "seeds": list(taught),
        "accuracy": {group: resampling.estimate(after[group]) for group in groups},
        "probes": {family: resampling.estimate(after[family]) for family in families},
        "probe_mean": resampling.estimate(_mean(after, families)) if families else None,
        "drift": resampling.over_few([record["drift_nats"] for record in records]),
        "drift_nats": fmean(record["drift_nats"] for record in records),
        "steps": max(record["steps"] or 0 for record in records),
        "stopped": [{"seed": seed, **record["stopped"]} for seed, record in taught.items() if record.get("stopped")],
        "seconds": fmean(record["seconds"] or 0.0 for record in records),  # oracle retrieval has no training
        "seconds_to": {str(level): _seconds_to(curve, main_group(groups), level) for level in LEVELS},
        "peak_memory_gib": max(record["peak_memory_gib"] or 0.0 for record in records),
        "curve": curve,
        "config": records[0]["config"],
    }


def _answers(record: Record) -> dict[str, list[bool]]:
    """Whether each item was right, by group of questions and by probe family."""
    found: dict[str, list[bool]] = {}
    for suite in record["suites"].values():
        for item in suite["results"]:
            found.setdefault(item["group"], []).append(item["correct"])
    return found


def _checked(before: Mapping[str, Sequence[bool]], record: Record, arm: str) -> dict[str, list[bool]]:
    after = _answers(record)
    if {name: len(items) for name, items in after.items()} != {name: len(items) for name, items in before.items()}:
        raise DataError(f"ablation: {arm} was asked other items than the base; evaluate all models on the same data")
    return after


def _mean(draws: Mapping[str, Any], families: Sequence[str]) -> Any:
    return sum(draws[family] for family in families) / len(families)


def _ratio(ours: Sequence[Record], theirs: Sequence[Record]) -> float | None:
    """Mean drift over mean drift."""
    below = sum(record["drift_nats"] for record in theirs)
    return sum(record["drift_nats"] for record in ours) / below if below else None


def _curve(base: Record, records: Sequence[Record]) -> list[dict[str, Any]]:
    """The mean of the seeds' runs at each moment at which they were evaluated, from the base on."""
    start: dict[str, Any] = {"step": 0, "seconds": 0.0, "drift_nats": 0.0}
    start["accuracy"] = {group: share["value"] for group, share in base["accuracy"].items()}
    start["probes"] = {group: share["value"] for group, share in base["probes"].items()}
    found = [start]
    by_step = [{at["step"]: at for at in record["curve"][:-1]} for record in records]  # a run may have ended itself
    common = [[moments[step] for moments in by_step] for step in by_step[0] if all(step in one for one in by_step)]
    ends = [record["curve"][-1] for record in records if record["curve"]]  # oracle retrieval has no curve
    for moments in [*common, ends] if ends else common:
        point: dict[str, Any] = {"step": max(at["step"] for at in moments)}
        point["seconds"] = fmean(at["seconds"] for at in moments)
        point["drift_nats"] = fmean(at["drift_nats"] for at in moments)
        point["accuracy"] = _means([at["accuracy"] for at in moments])
        point["probes"] = _means([at.get("probes", {}) for at in moments])
        found.append(point)
    return found


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: fmean(row[name] for row in rows) for name in rows[0] if all(name in row for row in rows)}


def _seconds_to(curve: Sequence[Mapping[str, Any]], group: str, level: float) -> float | None:
    """When a curve first reaches a level; None if it does not."""
    for before, after in itertools.pairwise(curve):
        low, high = before["accuracy"][group], after["accuracy"][group]
        if high >= level > low:
            part = (level - low) / (high - low)
            return float(before["seconds"] + part * (after["seconds"] - before["seconds"]))
    return None


def _front(points: Mapping[str, Sequence[tuple[float, float]]]) -> list[str]:
    """The arms with a moment that no other arm's moment beats in both accuracy and drift."""

    def beaten(drift: float, accuracy: float, by: str) -> bool:
        return any(d <= drift and a >= accuracy and (d, a) != (drift, accuracy) for d, a in points[by])

    return [
        name
        for name, moments in points.items()
        if any(
            accuracy > moments[0][1] and not any(beaten(drift, accuracy, other) for other in points)
            for drift, accuracy in moments[1:]
        )
    ]


def write_ablation(report: dict[str, Any], folder: Path) -> tuple[Path, Path]:
    """Writes report.json and report.html, each whole or not at all.

    Args:
        report: see `compose_ablation`.
        folder: made if it is missing.

    Raises:
        ArtifactError: they cannot be written.
    """
    from selftaught.reports.ablation_html import render_ablation
    from selftaught.reports.page import write_pair

    return write_pair(report, render_ablation(report), folder)
