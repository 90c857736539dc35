"""The page of a sequential experiment; `page` and the templates hold what it shares with other reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from selftaught.reports.charts import run_styles
from selftaught.reports.drawing import Style
from selftaught.reports.page import (
    Cell,
    Row,
    answer_text,
    facts,
    mark_best,
    render,
    settings,
    spaced,
    thousands,
    unbroken,
    write_pair,
)
from selftaught.reports.sequence_charts import Series, drift_chart, share_chart
from selftaught.reports.sequence_words import comparisons, resampled_words, sequence_headline
from selftaught.reports.tables import NOTHING, duration, ended_itself, interval, nats, percent, points

Report = Mapping[str, Any]
Estimate = Mapping[str, Any]
NO_DRIFT = {"value": 0.0, "low": 0.0, "high": 0.0}


def write_sequence(report: dict[str, Any], folder: Path) -> tuple[Path, Path]:
    """Writes report.json and report.html, each whole or not at all.

    Args:
        report: see `compose_sequence`.
        folder: made if it is missing.

    Returns:
        The paths of report.json and report.html.

    Raises:
        ArtifactError: the report is of another schema, holds a number that is not finite, or cannot be written.
    """
    return write_pair(report, render_sequence(report), folder)


def render_sequence(report: dict[str, Any]) -> str:
    """The page of a sequential experiment, as text.

    Raises:
        ArtifactError: the report is of another schema, or lacks a field that every report has.
    """
    return render(report, "sequence.html.j2", _view)


def _view(report: Report) -> dict[str, Any]:
    """Everything that the template shows, in words."""
    base, summary = report["base"], report["summary"]
    names = [{"name": "base"}, *({"name": row["method"], "method": row["method"]} for row in summary)]
    styles = run_styles(names)
    labels = ["base", *(row["label"] for row in summary)]
    seeds = report["seeds"]
    return {
        "title": report["title"],
        "created": report["created"],
        "headline": sequence_headline(report),
        "comparisons": comparisons(report),
        "model": report["model"],
        "order": report["order"],
        "skills": [spaced(name) for name in report["order"]],
        "seeds": f"{len(seeds)} seeds a method" if len(seeds) > 1 else "one seed",
        "stopped": [
            ended_itself(f"{run['label']}, seed {run['seed']}, {stage['skill']},", stage["stopped"])
            for run in report["runs"]
            for stage in run["stages"]
            if stage.get("stopped")
        ],
        "one_seed": "seeds" not in report["intervals"]["resampled"],
        "styles": list(styles.values()),
        "runs": [{"label": label, "style": style} for label, style in zip(labels, styles.values(), strict=True)],
        "sections": _sections(report),
        "matrices": [_matrix(report, row, styles[row["method"]]) for row in summary],
        "charts": _charts(report, styles),
        "has_probes": base["probe_mean"] is not None,
        "several": len(report["order"]) > 1,
        "held": _held(report),
        "examples": _examples(report, styles),
        "checks": report["checks"],
        "configs": _configs(report),
        "facts": facts(report, _data_facts(report)),
        "resampled": resampled_words(report),
        "clustered": any(suite["clusters"] < suite["items"] for suite in report["suites"].values()),
    }


def _held(report: Report) -> list[str]:
    """The methods whose steps also hold the student to the model as it was: which is part of what is compared."""
    labels = {row["method"]: row["label"] for row in report["summary"]}
    found = []
    for run in report["runs"]:
        configs = [stage["config"] or {} for stage in run["stages"]]
        anchored = any(config.get("anchor", {}).get("rehearsal") for config in configs[1:])
        if run["method"] == "sdft" and anchored and labels["sdft"] not in found:
            found.append(labels["sdft"])
    return found


# ---------------------------------------------------------------------------------- results table


def _sections(report: Report) -> list[dict[str, Any]]:
    """The results table: what is known at the end, what was forgotten on the way, what it cost."""
    order, summary, base = report["order"], report["summary"], report["base"]
    known = [share_row("Average of the skills", "each skill counts once", base["average"], each(summary, "average"))]
    for name in order:
        last = [row["matrix"][-1][name] for row in summary]
        known.append(share_row(spaced(name), f"{report['suites'][name]['items']} asked", base["accuracy"][name], last))
    kept = [
        *_points_row("Backward transfer", "points that later stages changed", each(summary, "backward_transfer"), max),
        *_points_row("Forgetting", "points below the best that was reached", each(summary, "forgetting"), min),
    ]
    for name in order[:-1]:
        kept.append(_kept_row(name, [row["kept"][name] for row in summary]))
    moved = [_probe_row(report, name) for name in (summary[0]["probes"] if summary else {})]
    if len(moved) > 1:
        moved.append(_mean_row(report))
    moved += drift_row(summary)
    cost = [
        *cost_row(summary, "seconds", "Training time, all stages", duration),
        *cost_row(summary, "steps", "Optimiser steps", thousands, compare=False),
        *cost_row(summary, "tokens", "Tokens learned from", thousands, compare=False),
        *cost_row(summary, "peak_memory_gib", "Peak memory", lambda value: f"{value:.1f} GiB"),
    ]
    parts = (("Known after the last stage", known), ("Kept of earlier skills", kept), ("Kept of the base", moved))
    return [{"title": title, "rows": rows} for title, rows in (*parts, ("Cost", cost)) if rows]


def each(summary: Sequence[Mapping[str, Any]], field: str) -> list[Any]:
    """A field of each method."""
    return [row[field] for row in summary]


def share_row(
    label: str, hint: str, before: Estimate, found: Sequence[Estimate], pick: Callable[..., float] = max
) -> Row:
    """A share of the base and of each method, with bars; `pick` says which is best."""
    row = Row(label, "", hint)
    for share in (before, *found):
        bar = {"low": 100 * share["low"], "span": 100 * (share["high"] - share["low"]), "at": 100 * share["value"]}
        row.cells.append(Cell(percent(share["value"]), interval(share), bar=bar))
    mark_best(row, [None, *(share["value"] for share in found)], pick)
    return row


def _points_row(label: str, hint: str, found: Sequence[Estimate | None], pick: Callable[..., float]) -> list[Row]:
    known = [value for value in found if value is not None]
    if not known:
        return []
    row = Row(label, hint)
    row.cells = [Cell(NOTHING), *(Cell(points(one["value"]), limits_words(one, points)) for one in known)]
    mark_best(row, [None, *(one["value"] for one in known)], pick)
    return [row]


def _kept_row(name: str, found: Sequence[Estimate]) -> Row:
    row = Row(f"{spaced(name)} kept", "of its accuracy at the end of its own stage")
    row.cells = [Cell(NOTHING)]
    for one in found:
        known = one["value"] is not None
        row.cells.append(Cell(percent(one["value"]), limits_words(one, _whole)) if known else Cell(NOTHING))
    mark_best(row, [None, *(one["value"] for one in found)], max)
    return row


def limits_words(one: Estimate, words: Callable[[float], str]) -> str:
    """An interval whose ends may be negative: "−3.1 to 0.2"; "" if it is not known."""
    if one["low"] is None or one["high"] is None:
        return ""
    return f"{words(one['low'])} to\N{NO-BREAK SPACE}{words(one['high'])}"


def _whole(share: float) -> str:
    return f"{100 * share:.0f}"


def _probe_row(report: Report, name: str) -> Row:
    row = Row(spaced(name), "", f"{report['suites'][name]['items']} asked")
    return fallen_row(row, report["base"]["accuracy"][name], [method["probes"][name] for method in report["summary"]])


def _mean_row(report: Report) -> Row:
    row = Row("Mean of these", "each family counts once")
    return fallen_row(row, report["base"]["probe_mean"], each(report["summary"], "probe_mean"))


def fallen_row(row: Row, before: Estimate, found: Sequence[Mapping[str, Any]]) -> Row:
    """Accuracy at the end and the change since the base, coloured where its interval leaves out zero."""
    row.cells = [Cell(percent(before["value"]))]
    for probe in found:
        lost = probe["forgotten"]
        tone = "down" if lost["low"] > 0 else "up" if lost["high"] < 0 else ""
        words = {"down": "▼ ", "up": "▲ ", "": ""}[tone] + points(-lost["value"], True)
        moved = {"low": -lost["high"], "high": -lost["low"]}
        row.cells.append(Cell(percent(probe["stages"][-1]["value"]), words, tone, limits=limits_words(moved, points)))
    mark_best(row, [None, *(probe["stages"][-1]["value"] for probe in found)], max)
    return row


def drift_row(summary: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Drift at the end; no row where it was not measured."""
    last = [row["drift_nats"][-1] if row["drift_nats"] else None for row in summary]
    if not any(last):
        return []
    row = Row("Drift", "nats per token away from the base; less is better")
    row.cells = [
        Cell(nats(0)),
        *(Cell(nats(one["value"]), limits_words(one, nats)) if one else Cell(NOTHING) for one in last),
    ]
    mark_best(row, [None, *(one["value"] if one else None for one in last)], min)
    return [row]


def cost_row(
    summary: Sequence[Mapping[str, Any]], field: str, label: str, words: Callable[[Any], str], compare: bool = True
) -> list[Row]:
    """A cost of each method, in words; no row where none knows it."""
    values = each(summary, field)
    if not any(value is not None for value in values):
        return []
    row = Row(label, "")
    row.cells = [Cell(NOTHING), *(Cell(NOTHING if value is None else unbroken(words(value))) for value in values)]
    if compare:
        mark_best(row, [None, *values], min)
    return [row]


# ------------------------------------------------------------------------------- the other sections


def _matrix(report: Report, summary: Mapping[str, Any], style: Style) -> dict[str, Any]:
    """Accuracy on each skill (columns) after each stage (rows)."""
    order = report["order"]
    rows = [("base", report["base"]["accuracy"]), *((f"after {n}", m) for n, m in zip(order, summary["matrix"]))]
    return {
        "label": summary["label"],
        "index": style.index,
        "rows": [
            {"label": label, "cells": [_heat(row[name], place == at) for at, name in enumerate(order, start=1)]}
            for place, (label, row) in enumerate(rows)
        ],
    }


def _heat(share: Estimate, own: bool) -> dict[str, Any]:
    """A cell; its colour goes only so deep that text stays readable on it."""
    return {"text": percent(share["value"]), "limits": interval(share), "heat": 0.5 * share["value"], "own": own}


def _charts(report: Report, styles: Mapping[str, Style]) -> list[dict[str, str]]:
    order, base, drawn = report["order"], report["base"], []

    def series(before: Estimate, stages: Callable[[Mapping[str, Any]], Sequence[Estimate]]) -> list[Series]:
        return [Series(row["label"], styles[row["method"]], [before, *stages(row)]) for row in report["summary"]]

    for place, name in enumerate(order):
        lines = series(base["accuracy"][name], partial(_column, name))
        chart = share_chart(lines, order, f"Accuracy on {name}", place, f"skill{place}")
        drawn.append({"title": spaced(name), "hint": f"taught in stage {place + 1}", "svg": chart})
    if base["probe_mean"] is not None:
        lines = series(base["probe_mean"], lambda row: row["probe_mean"]["stages"])
        chart = share_chart(lines, order, "Mean accuracy on the probes", None, "probes", whole=False)
        drawn.append({"title": "Probes", "hint": "mean of the families", "svg": chart})
    if all(row["drift_nats"] for row in report["summary"]):
        chart = drift_chart(series(NO_DRIFT, lambda row: row["drift_nats"]), order, "drift")
        drawn.append({"title": "Drift", "hint": "nats per token away from the base", "svg": chart})
    return drawn


def _column(skill: str, summary: Mapping[str, Any]) -> list[Estimate]:
    return [stage[skill] for stage in summary["matrix"]]


def _examples(report: Report, styles: Mapping[str, Style]) -> list[dict[str, Any]]:
    """Answers that teaching changed, by skill."""
    labels, last = report["labels"], report["order"][-1]
    return [
        {
            "name": spaced(skill),
            "rows": [
                {"id": row["id"], "words": _change(row, labels),
                 "given": _given(row, labels, styles, skill == last)}
                for row in report["examples"]
                if row["skill"] == skill
            ],
        }
        for skill in dict.fromkeys(row["skill"] for row in report["examples"])
    ]  # fmt: skip


def _change(row: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """Who learned or forgot it: "forgotten by SFT"."""
    learned = row["change"] == "learned"
    who = [
        labels[method]
        for method, said in row["methods"].items()
        if said["last"]["correct"] == learned and (learned or said["own"]["correct"])
    ]
    return f"{row['change']} by {' and '.join(who)}"


def _given(
    row: Mapping[str, Any], labels: Mapping[str, str], styles: Mapping[str, Style], last: bool
) -> list[dict[str, Any]]:
    """What was answered before, after the skill's own stage and at the end; for the last skill these two are one."""
    given = [{"label": "base", "index": styles["base"].index, **answer_text(row["base"])}]
    for method, said in row["methods"].items():
        moments = [("own", f"{labels[method]}, just taught")] if not last else []
        for moment, label in [*moments, ("last", f"{labels[method]}, at the end")]:
            given.append({"label": label, "index": styles[method].index, **answer_text(said[moment])})
    return given


def _configs(report: Report) -> list[dict[str, Any]]:
    """Each method's settings in each stage, of its first seed: seeds differ in nothing else."""
    seen, rows = set(), []
    for run in report["runs"]:
        if run["method"] not in seen:
            seen.add(run["method"])
            rows += [(f"{run['label']}, {stage['skill']}", stage["config"], None) for stage in run["stages"]]
    return settings(rows)


def _data_facts(report: Report) -> list[tuple[str, str]]:
    def words(kind: str) -> str:
        found = {name: suite for name, suite in report["suites"].items() if suite["kind"] == kind}
        return ", ".join(f"{name} {suite['items']}" for name, suite in found.items())

    seeds = ", ".join(map(str, report["seeds"]))
    return [("Skills asked", words("skill")), ("Probes asked", words("probe")), ("Seeds", seeds)]
