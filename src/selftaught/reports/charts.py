"""Charts of a report: learning, the plane of learning against forgetting, losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selftaught.reports.drawing import (
    Style,
    as_svg,
    canvas,
    draw_line,
    label_points,
    percent_axis,
    pixels_of,
    point_better,
)
from selftaught.reports.tables import base_of, duration, nats, percent

# light, dark, marker; the first four belong to the methods, the others to further runs
FAMILIES = {
    "base": ("#667085", "#9aa4b2", "o"),
    "sft": ("#c2620a", "#f7b040", "s"),
    "sft_documents": ("#8b2e1f", "#e0705c", "^"),
    "sdft": ("#0a6fa8", "#53b5ea", "o"),
}
EXTRAS = (
    ("#6d45b0", "#b69af2", "D"),
    ("#2a7a4b", "#67c48e", "v"),
    ("#a82a74", "#ef8dc2", "P"),
    ("#5d6b10", "#bccb55", "X"),
    ("#0f7b7b", "#5fd0cf", "<"),
    ("#7a4a1e", "#d0a071", ">"),
    ("#a3322b", "#f08a80", "p"),
    ("#44506b", "#a8b4d0", "h"),
)


@dataclass(frozen=True)
class Point:
    """A run at one moment of its training."""

    step: int
    seconds: float | None
    accuracy: float | None
    drift: float | None


def run_styles(runs: Sequence[Mapping[str, Any]]) -> dict[str, Style]:
    """A colour and a marker for each run, by its method; no two runs share one until there are very many."""
    styles: dict[str, Style] = {}
    free, taken = list(EXTRAS), set()
    for index, run in enumerate(runs):
        family = _family(run)
        if family is None or family in taken:
            look = free.pop(0) if free else EXTRAS[index % len(EXTRAS)]
        else:
            taken.add(family)
            look = FAMILIES[family]
        styles[run["name"]] = Style(index, *look)
    return styles


def _family(run: Mapping[str, Any]) -> str | None:
    name, method = run["name"], run.get("method")
    if name == "base" or method == "sdft":
        return "base" if name == "base" else "sdft"
    if method == "sft":
        documents = (run.get("config") or {}).get("sft_documents") or "document" in name
        return "sft_documents" if documents else "sft"
    return name if name in FAMILIES else None


def curve_points(report: Mapping[str, Any], run: Mapping[str, Any], group: str) -> list[Point]:
    """A run from its start, which is the base where there is one, over its curve to its final evaluation."""
    base, steps = base_of(report), run.get("steps")
    points = [
        Point(at["step"], at.get("seconds"), at.get("accuracy", {}).get(group), at.get("drift_nats"))
        for at in run.get("curve") or []
    ]
    if base is not None:
        points = [point for point in points if point.step > 0]
        before = base["accuracy"].get(group)
        points.insert(0, Point(0, 0.0, before["value"] if before else None, 0.0))
    share = run["accuracy"].get(group)
    if share is not None:
        seconds = run.get("seconds")
        if points and steps is not None and points[-1].step >= steps:
            seconds = points.pop().seconds
        last = points[-1].step + 1 if points else 0
        points.append(Point(last if steps is None else steps, seconds, share["value"], run.get("drift_nats")))
    return points


# ---------------------------------------------------------------------------------------- charts


def learning_chart(report: Mapping[str, Any], group: str, name: str) -> str | None:
    """Accuracy on one group against time (or steps), one line a run; None if no run has a curve.

    Args:
        report: see docs/report.md.
        group: the group of questions.
        name: prefix of every id in the drawing; unique within the page.
    """
    base = base_of(report)
    runs = [run for run in report["runs"] if run is not base and any(group in at["accuracy"] for at in run["curve"])]
    if not runs:
        return None
    styles = run_styles(report["runs"])
    lines = {run["name"]: [p for p in curve_points(report, run, group) if p.accuracy is not None] for run in runs}
    timed = all(p.seconds is not None for points in lines.values() for p in points)
    longest = max(p.seconds or 0 for points in lines.values() for p in points) if timed else 0
    unit = 60 if longest > 180 else 1
    labels: list[tuple[float, float, str, str]] = []
    drawn: list[list[tuple[float, float]]] = []
    with canvas(460, 300, name) as (figure, axes):
        for run in runs:
            style = styles[run["name"]]
            xs = [(p.seconds or 0) / unit if timed else float(p.step) for p in lines[run["name"]]]
            ys = [100 * (p.accuracy or 0) for p in lines[run["name"]]]
            draw_line(axes, xs, ys, style)
            labels.append((xs[-1], ys[-1], run["label"], style.placeholder))
            drawn.append(list(zip(xs, ys, strict=True)))
        end = 1.04 * max(x for line in drawn for x, _ in line) or 1
        if base is not None and group in base["accuracy"]:
            height = 100 * base["accuracy"][group]["value"]
            axes.axhline(height, color=styles["base"].placeholder, linewidth=1.2, linestyle=(0, (4, 3)))
            labels.append((0.93 * end, height, base["label"], styles["base"].placeholder))
            drawn.append([(part / 8 * end, height) for part in range(9)])
        axes.set_xlim(0, end)
        percent_axis(axes)
        axes.set_xlabel(("minutes" if unit == 60 else "seconds") + " of training" if timed else "optimiser steps")
        figure.subplots_adjust(left=0.12, right=0.96, top=0.95, bottom=0.15)
        label_points(axes, labels, pixels_of(axes, drawn))
        return as_svg(figure, name, _learning_words(runs, lines, group))


def plane_chart(report: Mapping[str, Any], group: str, name: str) -> str | None:
    """Learning against forgetting: accuracy over drift; None if no trained run has both.

    Args:
        report: see docs/report.md.
        group: the group of questions whose accuracy is the height.
        name: prefix of every id in the drawing; unique within the page.
    """
    base = base_of(report)
    runs = [run for run in report["runs"] if run is not base]
    runs = [run for run in runs if run.get("drift_nats") is not None and group in run["accuracy"]]
    if not runs or base is None:
        return None
    styles = run_styles(report["runs"])
    labels: list[tuple[float, float, str, str]] = []
    drawn: list[list[tuple[float, float]]] = []
    with canvas(470, 370, name) as (figure, axes):
        for run in runs:
            points = [p for p in curve_points(report, run, group) if p.drift is not None and p.accuracy is not None]
            xs, ys = [p.drift or 0.0 for p in points], [100 * (p.accuracy or 0) for p in points]
            share, style = run["accuracy"][group], styles[run["name"]]
            axes.plot(
                [xs[-1]] * 2, [100 * share["low"], 100 * share["high"]], color=style.placeholder, alpha=0.35, lw=4
            )
            draw_line(axes, xs, ys, style, final=11)
            labels.append((xs[-1], ys[-1], run["label"], style.placeholder))
            drawn += [list(zip(xs, ys, strict=True)), [(xs[-1], 100 * share["low"]), (xs[-1], 100 * share["high"])]]
        if group in base["accuracy"]:
            style, height = styles["base"], 100 * base["accuracy"][group]["value"]
            axes.plot([0], [height], marker="o", markersize=9, color=style.placeholder, clip_on=False, zorder=5)
            labels.append((0, height, base["label"], style.placeholder))
            drawn.append([(0, height)])
        axes.set_xlim(0, 1.18 * max([1e-3, *(x for line in drawn for x, _ in line)]))
        percent_axis(axes)
        axes.set_xlabel("forgetting: drift from the base model, nats per token")
        figure.subplots_adjust(left=0.12, right=0.97, top=0.96, bottom=0.125)
        point_better(axes, label_points(axes, labels, pixels_of(axes, drawn)))
        return as_svg(figure, name, _plane_words(runs, group))


def loss_chart(report: Mapping[str, Any], run: Mapping[str, Any], name: str) -> str | None:
    """The loss of one run, step by step, with a running mean; None if fewer than two steps are known."""
    rows = [row for row in run.get("loss") or [] if row.get("loss") is not None]
    if len(rows) < 2:
        return None
    style = run_styles(report["runs"])[run["name"]]
    steps, losses = [row["step"] for row in rows], [row["loss"] for row in rows]
    reach = len(rows) // 20
    windows = [losses[max(0, place - reach) : place + reach + 1] for place in range(len(losses))]
    means = [sum(window) / len(window) for window in windows]
    with canvas(300, 170, name) as (figure, axes):
        axes.plot(steps, losses, color=style.placeholder, linewidth=1, alpha=0.35)
        axes.plot(steps, means, color=style.placeholder, linewidth=2)
        axes.set_ylim(bottom=min(0, *losses))
        axes.set_xlim(steps[0], steps[-1])
        axes.locator_params(nbins=4)
        axes.set_xlabel("step")
        figure.subplots_adjust(left=0.14, right=0.95, top=0.94, bottom=0.27)
        return as_svg(figure, name, f"Loss of {run['label']}: {losses[0]:.2f} at first, {means[-1]:.2f} at the end.")


def _learning_words(runs: Sequence[Mapping[str, Any]], lines: Mapping[str, Sequence[Point]], group: str) -> str:
    words = []
    for run in runs:
        first, last = lines[run["name"]][0], lines[run["name"]][-1]
        after = "" if last.seconds is None else f" in {duration(last.seconds)}"
        words.append(f"{run['label']} goes from {percent(first.accuracy or 0)} to {percent(last.accuracy or 0)}{after}")
    return f"Accuracy on {group} questions during training: {'; '.join(words)}."


def _plane_words(runs: Sequence[Mapping[str, Any]], group: str) -> str:
    words = (
        f"{run['label']} ends at {percent(run['accuracy'][group]['value'])} and {nats(run['drift_nats'])} nats per "
        "token"
        for run in runs
    )
    return f"Accuracy on {group} questions over drift from the base model; upper left is better: {'; '.join(words)}."
