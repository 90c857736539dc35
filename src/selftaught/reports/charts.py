"""Charts as inline SVG: text and axes take the page's colour, runs take the page's `--run-N` colours.

Charts are drawn with placeholder colours, which `_svg` turns into CSS variables, so that one drawing
serves light and dark pages. Coordinates are pixels of the drawing (72 to the inch).
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selftaught.reports.tables import base_of, duration, nats, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, PAPER = "#010101", "#fefefe"  # placeholders: the text's colour, the surface's colour
FONT_STACK = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
FONT_PIXELS = 12
CHARACTER_PIXELS = 6.9  # of a bold label, generously

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
)


@dataclass(frozen=True)
class Style:
    """How a run looks in every chart and table of one page."""

    index: int
    light: str
    dark: str
    marker: str

    @property
    def placeholder(self) -> str:
        """The colour it is drawn with."""
        return f"#fe00{self.index:02x}"


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
    with _canvas(460, 300, name) as (figure, axes):
        for run in runs:
            style = styles[run["name"]]
            xs = [(p.seconds or 0) / unit if timed else float(p.step) for p in lines[run["name"]]]
            ys = [100 * (p.accuracy or 0) for p in lines[run["name"]]]
            _line(axes, xs, ys, style)
            labels.append((xs[-1], ys[-1], run["label"], style.placeholder))
            drawn.append(list(zip(xs, ys, strict=True)))
        end = 1.04 * max(x for line in drawn for x, _ in line) or 1
        if base is not None and group in base["accuracy"]:
            height = 100 * base["accuracy"][group]["value"]
            axes.axhline(height, color=styles["base"].placeholder, linewidth=1.2, linestyle=(0, (4, 3)))
            labels.append((0.93 * end, height, base["label"], styles["base"].placeholder))
            drawn.append([(part / 8 * end, height) for part in range(9)])
        axes.set_xlim(0, end)
        _percent_axis(axes)
        axes.set_xlabel(("minutes" if unit == 60 else "seconds") + " of training" if timed else "optimiser steps")
        figure.subplots_adjust(left=0.12, right=0.96, top=0.95, bottom=0.15)
        _label_points(axes, labels, _pixels(axes, drawn))
        return _svg(figure, name, _learning_words(runs, lines, group))


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
    with _canvas(470, 370, name) as (figure, axes):
        for run in runs:
            points = [p for p in curve_points(report, run, group) if p.drift is not None and p.accuracy is not None]
            xs, ys = [p.drift or 0.0 for p in points], [100 * (p.accuracy or 0) for p in points]
            share, style = run["accuracy"][group], styles[run["name"]]
            axes.plot(
                [xs[-1]] * 2, [100 * share["low"], 100 * share["high"]], color=style.placeholder, alpha=0.35, lw=4
            )
            _line(axes, xs, ys, style, final=11)
            labels.append((xs[-1], ys[-1], run["label"], style.placeholder))
            drawn += [list(zip(xs, ys, strict=True)), [(xs[-1], 100 * share["low"]), (xs[-1], 100 * share["high"])]]
        if group in base["accuracy"]:
            style, height = styles["base"], 100 * base["accuracy"][group]["value"]
            axes.plot([0], [height], marker="o", markersize=9, color=style.placeholder, clip_on=False, zorder=5)
            labels.append((0, height, base["label"], style.placeholder))
            drawn.append([(0, height)])
        axes.set_xlim(0, 1.18 * max([1e-3, *(x for line in drawn for x, _ in line)]))
        _percent_axis(axes)
        axes.set_xlabel("forgetting: drift from the base model, nats per token")
        figure.subplots_adjust(left=0.12, right=0.97, top=0.96, bottom=0.125)
        _point_better(axes, _label_points(axes, labels, _pixels(axes, drawn)))
        return _svg(figure, name, _plane_words(runs, group))


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
    with _canvas(300, 170, name) as (figure, axes):
        axes.plot(steps, losses, color=style.placeholder, linewidth=1, alpha=0.35)
        axes.plot(steps, means, color=style.placeholder, linewidth=2)
        axes.set_ylim(bottom=min(0, *losses))
        axes.set_xlim(steps[0], steps[-1])
        axes.locator_params(nbins=4)
        axes.set_xlabel("step")
        figure.subplots_adjust(left=0.14, right=0.95, top=0.94, bottom=0.27)
        return _svg(figure, name, f"Loss of {run['label']}: {losses[0]:.2f} at first, {means[-1]:.2f} at the end.")


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


# ---------------------------------------------------------------------------------- drawing parts


@contextmanager
def _canvas(width: int, height: int, name: str) -> Iterator[tuple[Figure, Axes]]:
    """A figure of so many pixels with one calm pair of axes, whatever the user's own matplotlib style."""
    import matplotlib.style
    from matplotlib.figure import Figure

    settings: dict[str, Any] = {
        "svg.fonttype": "none", "svg.hashsalt": name, "font.family": ["DejaVu Sans"], "font.size": FONT_PIXELS,
        "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
        "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8, "axes.facecolor": "none",
        "axes.grid": True, "axes.grid.axis": "y", "grid.color": INK, "grid.alpha": 0.13, "grid.linewidth": 0.8,
        "xtick.major.size": 0, "ytick.major.size": 0, "xtick.major.pad": 7, "ytick.major.pad": 9,
        "axes.labelsize": FONT_PIXELS, "axes.axisbelow": True, "text.parse_math": False,
    }  # fmt: skip
    with matplotlib.style.context(["default", settings]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the reader's browser has its own fonts
        figure = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor="none")
        yield figure, figure.add_subplot()


def _line(axes: Axes, xs: Sequence[float], ys: Sequence[float], style: Style, final: float = 8) -> None:
    """A run's line with small dots and a large last marker."""
    axes.plot(xs, ys, color=style.placeholder, linewidth=2.2, marker="o", markersize=3.5, clip_on=False, zorder=3)
    axes.plot(
        xs[-1:], ys[-1:], color=style.placeholder, marker=style.marker, markersize=final,
        markeredgecolor=PAPER, markeredgewidth=1.5, clip_on=False, zorder=5,
    )  # fmt: skip


def _percent_axis(axes: Axes) -> None:
    axes.set_ylim(0, 104)
    axes.set_yticks([0, 25, 50, 75, 100], ["0%", "25%", "50%", "75%", "100%"])


def _short(label: str) -> str:
    return label if len(label) <= 20 else f"{label[:19]}…"


def _label_points(
    axes: Axes, labels: Sequence[tuple[float, float, str, str]], busy: Sequence[tuple[float, float]]
) -> list[tuple[float, float]]:
    """Names points where the names hit least of the drawing; returns all occupied pixels."""
    taken = list(busy)
    left, low, right, high = axes.bbox.extents
    for x, y, label, colour in labels:
        (px, py), width = axes.transData.transform((x, y)), CHARACTER_PIXELS * len(_short(label))
        spots = [
            (px + 12, py, 0.0), (px - 12, py, 1.0), (px, py + 20, 0.5), (px, py - 20, 0.5),
            (px + 8, py + 17, 0.0), (px + 8, py - 17, 0.0), (px - 8, py + 17, 1.0), (px - 8, py - 17, 1.0),
        ]  # fmt: skip

        costs = []
        for sx, sy, anchor in spots:
            start, end = sx - anchor * width, sx + (1 - anchor) * width
            hits = sum(start - 5 < bx < end + 5 and abs(by - sy) < 11 for bx, by in taken)
            outside = start < left + 2 or end > right + 10 or not low + 6 < sy < high + 6
            costs.append(hits + 100 * outside)
        sx, sy, anchor = spots[costs.index(min(costs))]
        axes.annotate(
            _short(label), (sx, sy), xycoords="figure pixels", color=colour, fontweight="bold", va="center",
            ha={0.0: "left", 0.5: "center", 1.0: "right"}[anchor], annotation_clip=False,
        )  # fmt: skip
        taken += [(sx + (part / 8 - anchor) * width, sy) for part in range(9)]
    return taken


def _pixels(axes: Axes, lines: Sequence[Sequence[tuple[float, float]]]) -> list[tuple[float, float]]:
    """Pixels along drawn lines, which names had better leave free."""
    busy: list[tuple[float, float]] = []
    for line in lines:
        busy += _along([(float(x), float(y)) for x, y in axes.transData.transform(list(line))])
    return busy


def _along(corners: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Pixels along the lines between neighbouring points."""
    return [
        (x0 + part / 12 * (x1 - x0), y0 + part / 12 * (y1 - y0))
        for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[-1]], strict=True)
        for part in range(13)
    ]


def _point_better(axes: Axes, busy: Sequence[tuple[float, float]]) -> None:
    """An arrow to the upper left, where the drawing is emptiest."""
    left, low, right, high = axes.bbox.extents
    parts = [(across, up) for across in (0.15, 0.35, 0.6, 0.85) for up in (0.2, 0.4, 0.6, 0.8)]
    spots = [(left + across * (right - left), low + up * (high - low)) for across, up in parts]

    def room(spot: tuple[float, float]) -> float:
        return min(((x - spot[0]) ** 2 + (y - spot[1]) ** 2 for x, y in busy), default=0)

    x, y = max(spots, key=room)
    arrow = {"arrowstyle": "-|>", "color": INK, "alpha": 0.55, "linewidth": 1.4, "mutation_scale": 13}
    pixels = "figure pixels"
    axes.annotate("", (x - 16, y + 22), (x + 8, y - 2), xycoords=pixels, textcoords=pixels, arrowprops=arrow)
    axes.annotate("better", (x + 2, y - 14), xycoords=pixels, alpha=0.7, fontstyle="italic", ha="center", va="center")


# -------------------------------------------------------------------------------------- SVG output


def _svg(figure: Figure, name: str, description: str) -> str:
    """The drawing as an element for a page: own ids, the page's colours and fonts, no foreign addresses."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)  # it would rule the whole page
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'href="#{name}-')
    text = re.sub(r"(font: [^;\"<]*?px |font-family: )[^;\"<]*", rf"\1{FONT_STACK}", text)
    text = re.sub(r"#fe00([0-9a-f]{2})", lambda match: f"var(--run-{int(match[1], 16)})", text)
    text = text.replace(INK, "currentColor").replace(PAPER, "var(--surface)")
    box = re.search(r'viewBox="[^"]*"', text)
    opening = f'<svg class="chart" role="img" aria-label="{html.escape(description)}" {box[0] if box else ""}'
    return opening + ' style="stroke-linejoin: round">' + text[text.index(">") + 1 :].strip()
