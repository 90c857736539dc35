"""The page of an ablation; `page` and the templates hold what it shares with other reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from selftaught.reports.charts import learning_chart, plane_chart, run_styles
from selftaught.reports.page import facts, render, settings, spaced
from selftaught.reports.tables import NOTHING, duration, ended_itself, interval, nats, percent, points

if TYPE_CHECKING:
    from rich.table import Table

Report = Mapping[str, Any]
MAX_DRAWN = 10  # arms in one chart; the front's come first


def render_ablation(report: dict[str, Any]) -> str:
    """The page of an ablation, as text.

    Raises:
        ArtifactError: the report is of another schema, or lacks a field that every report has.
    """
    return render(report, "ablation.html.j2", _view)


def headline(report: Report) -> str:
    """The report in a sentence a task."""
    words = []
    for task, found in report["tasks"].items():
        best = max(found["arms"], key=lambda arm: arm["accuracy"][found["main_group"]]["value"])
        share = percent(best["accuracy"][found["main_group"]]["value"])
        front = ", ".join(found["front"]) or "no arm"
        most = f"{best['label']} learned most ({share}, drift {nats(best['drift_nats'])})"
        words.append(f"{spaced(task)}: {most}; on the front: {front}.")
    return " ".join(words)


def ablation_table(report: Report, task: str) -> Table:
    """A task's arms, for the terminal."""
    from rich.table import Table

    found = report["tasks"][task]
    seeds = len(found["arms"][0]["seeds"])
    table = Table(title=f"{task}, over {seeds} seed{'' if seeds == 1 else 's'}; * is on the front")
    for column in (
        "arm",
        *found["groups"],
        "probes",
        "drift",
        "seconds",
        *(f"to {percent(x)}" for x in _levels(report)),
    ):
        table.add_column(column, justify="left" if column == "arm" else "right", overflow="fold")
    base = found["base"]
    table.add_row("base", *(percent(base["accuracy"][group]["value"]) for group in found["groups"]), _base_mean(found))
    for arm in found["arms"]:
        table.add_row(
            f"{arm['label']}{' *' if arm['name'] in found['front'] else ''}",
            *(percent(arm["accuracy"][group]["value"]) for group in found["groups"]),
            percent(arm["probe_mean"]["value"]) if arm["probe_mean"] else NOTHING,
            nats(arm["drift_nats"]),
            duration(arm["seconds"]),
            *(_seconds(arm["seconds_to"][str(level)]) for level in _levels(report)),
        )
    return table


def task_notes(found: Mapping[str, Any]) -> list[str]:
    """Of a task, a sentence for each run that ended itself, and for each that could not be done."""
    ended = [
        ended_itself(f"{arm['label']}, seed {one['seed']},", one) for arm in found["arms"] for one in arm["stopped"]
    ]
    return [*ended, *(f"{run['arm']}, seed {run['seed']}, is missing: {run['why']}." for run in found["not_run"])]


def _levels(report: Report) -> Sequence[float]:
    return report["levels"]  # type: ignore[no-any-return]


def _seconds(value: float | None) -> str:
    return NOTHING if value is None else duration(value)


def _base_mean(found: Mapping[str, Any]) -> str:
    shares = [share["value"] for share in found["base"]["probes"].values()]
    return percent(sum(shares) / len(shares)) if shares else NOTHING


def _view(report: Report) -> dict[str, Any]:
    """Everything that the template shows, in words."""
    arms = {arm["name"]: arm for found in report["tasks"].values() for arm in found["arms"]}
    seeds = list(
        dict.fromkeys(seed for found in report["tasks"].values() for arm in found["arms"] for seed in arm["seeds"])
    )
    rows = [("Seeds", ", ".join(map(str, seeds)))]
    first = next(iter(report["tasks"].values()))
    return {
        "title": report["title"],
        "created": report["created"],
        "headline": headline(report),
        "comparisons": [],
        "model": report["model"],
        "styles": list(run_styles([{"name": "base"}, *arms.values()]).values()),
        "levels": [percent(level) for level in report["levels"]],
        "tasks": [_task(report, task, place) for place, task in enumerate(report["tasks"])],
        "configs": settings([(arm["label"], arm["config"], None) for arm in first["arms"]]),
        "facts": facts(report, rows),
    }


def _task(report: Report, task: str, place: int) -> dict[str, Any]:
    found = report["tasks"][task]
    group = found["main_group"]
    changes = {row["arm"]: row for row in found["differences"]}
    first = sorted(found["arms"], key=lambda arm: arm["name"] not in (*found["front"], found["reference"]))[:MAX_DRAWN]
    drawn = [arm for arm in found["arms"] if arm in first]
    pseudo = {"runs": [{**found["base"], "curve": []}, *drawn]}
    others = [name for name in found["groups"] if name != group]
    asked = [f"{spaced(name)} ({found['items'][name]} asked)" for name in (group, *others)]
    known = [percent(found["base"]["accuracy"][name]["value"]) for name in (group, *others)]
    probes = ["Probes, mean"] if found["families"] else []
    return {
        "name": spaced(task),
        "id": f"task{place}",
        "main_group": group,
        "reference": next(arm["label"] for arm in found["arms"] if arm["name"] == found["reference"]),
        "columns": [asked[0], "Drift, nats per token", *asked[1:], *probes],
        "base": [known[0], nats(0), *known[1:], *([_base_mean(found)] if probes else [])],
        "rows": [_row(report, found, arm, changes.get(arm["name"])) for arm in found["arms"]],
        "left_out": len(found["arms"]) - len(drawn),
        "notes": task_notes(found),
        "plane": plane_chart(pseudo, group, f"plane{place}"),
        "learning": learning_chart(pseudo, group, f"learning{place}"),
    }


def _row(
    report: Report, found: Mapping[str, Any], arm: Mapping[str, Any], change: Mapping[str, Any] | None
) -> dict[str, Any]:
    def cell(now: Mapping[str, Any], moved: Mapping[str, Any] | None) -> dict[str, str]:
        if moved is None:
            return {"value": percent(now["value"]), "limits": interval(now), "moved": "", "tone": ""}
        tone = "up" if moved["low"] > 0 else "down" if moved["high"] < 0 else ""
        words = f"{points(moved['value'], True)} ({points(moved['low'])} to {points(moved['high'])})"
        return {"value": percent(now["value"]), "limits": interval(now), "moved": words, "tone": tone}

    groups = sorted(found["groups"], key=lambda name: name != found["main_group"])
    cells = [cell(arm["accuracy"][name], change["accuracy"][name] if change else None) for name in groups]
    if arm["probe_mean"]:
        cells.append(cell(arm["probe_mean"], change["probe_mean"] if change else None))
    drift = arm["drift"]
    limits = "" if drift["low"] is None else f"{nats(drift['low'])} to {nats(drift['high'])}"
    ratio = f"{change['drift_ratio']:.2f} times" if change and change["drift_ratio"] is not None else ""
    cells.insert(1, {"value": nats(drift["value"]), "limits": limits, "moved": ratio, "tone": ""})
    return {
        "label": arm["label"],
        "seeds": len(arm["seeds"]),
        "front": arm["name"] in found["front"],
        "cells": cells,
        "steps": arm["steps"],
        "seconds": duration(arm["seconds"]),
        "to": [_seconds(arm["seconds_to"][str(level)]) for level in report["levels"]],
    }
