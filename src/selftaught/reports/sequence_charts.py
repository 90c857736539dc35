"""Charts over the stages of a sequence: one line a method, with its interval as a band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selftaught.reports.drawing import (
    CHARACTER_PIXELS,
    INK,
    Style,
    as_svg,
    canvas,
    draw_line,
    label_points,
    percent_axis,
    pixels_of,
)
from selftaught.reports.tables import nats, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 330, 240


@dataclass(frozen=True)
class Series:
    """A method's values, the base's first, then one a stage; each with "value", "low" and "high"."""

    label: str
    style: Style
    points: Sequence[Mapping[str, Any]]


def share_chart(
    series: Sequence[Series], order: Sequence[str], what: str, taught: int | None, name: str, whole: bool = True
) -> str:
    """A share after each stage.

    Args:
        series: the methods.
        order: the skills, as they were taught.
        what: is drawn, for those who cannot see it.
        taught: the stage that teaches it, from 0; None if none does.
        name: prefix of every id in the drawing; unique within the page.
        whole: whether the axis goes from 0 to 100%; else it shows what there is.
    """
    from matplotlib.ticker import MaxNLocator

    words = (f"{one.label} goes from {_path(one, percent)}" for one in series)
    with canvas(WIDTH, HEIGHT, name) as (figure, axes):
        if taught is not None:
            axes.axvspan(taught, taught + 1, color=INK, alpha=0.07, linewidth=0)
        drawn = _draw(axes, series, 100)
        percent_axis(axes)
        if not whole:
            heights = [y for line in drawn for _, y in line]
            axes.set_ylim(max(0, 5 * (min(heights) // 5) - 5), min(104, 5 * (max(heights) // 5) + 10))
            axes.yaxis.set_major_locator(MaxNLocator(5))
            axes.yaxis.set_major_formatter("{x:.0f}%")
        _finish(figure, axes, series, order, drawn, 100)
        return as_svg(figure, name, f"{what} after each stage: {'; '.join(words)}.")


def drift_chart(series: Sequence[Series], order: Sequence[str], name: str) -> str:
    """Drift from the base after each stage; arguments as those of `share_chart`."""
    words = (f"{one.label} goes from {_path(one, nats)}" for one in series)
    with canvas(WIDTH, HEIGHT, name) as (figure, axes):
        drawn = _draw(axes, series, 1)
        axes.set_ylim(0, 1.12 * max(1e-3, *(y for line in drawn for _, y in line)))
        axes.locator_params(axis="y", nbins=5)
        _finish(figure, axes, series, order, drawn, 1)
        return as_svg(figure, name, f"Drift in nats per token after each stage: {'; '.join(words)}.")


def _path(one: Series, words: Any) -> str:
    return " to ".join(words(point["value"]) for point in one.points)


def _draw(axes: Axes, series: Sequence[Series], scale: float) -> list[list[tuple[float, float]]]:
    """Bands and lines; returns what names should leave free."""
    drawn: list[list[tuple[float, float]]] = []
    for one in series:
        colour, places = one.style.placeholder, range(len(one.points))
        ys = [scale * point["value"] for point in one.points]
        limits = [
            (scale * p["low"], scale * p["high"]) if p["low"] is not None else (y, y)
            for p, y in zip(one.points, ys, strict=True)
        ]
        lows, highs = [low for low, _ in limits], [high for _, high in limits]
        axes.fill_between(places, lows, highs, color=colour, alpha=0.16, linewidth=0)
        draw_line(axes, list(places), ys, one.style)
        drawn += [list(zip(places, values, strict=True)) for values in (ys, ys, ys, lows, highs)]  # lines weigh more
    return drawn


def _finish(
    figure: Any,
    axes: Axes,
    series: Sequence[Series],
    order: Sequence[str],
    drawn: Sequence[Sequence[tuple[float, float]]],
    scale: float,
) -> None:
    """The stages below, and the methods' names where there is room."""
    names = ["base", *order]
    fits = CHARACTER_PIXELS * max(map(len, names)) < 0.8 * WIDTH / len(names)
    axes.set_xticks(range(len(names)), names if fits else ["base", *map(str, range(1, len(names)))])
    axes.set_xlabel("after teaching" if fits else "after stage")
    axes.set_xlim(-0.12, len(order) + 0.18)
    figure.subplots_adjust(left=0.14, right=0.96, top=0.95, bottom=0.21)
    labels = [(len(order), scale * one.points[-1]["value"], one.label, one.style.placeholder) for one in series]
    label_points(axes, labels, pixels_of(axes, drawn))
