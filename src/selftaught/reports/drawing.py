"""Parts of charts as inline SVG: text and axes take the page's colour, runs take the page's `--run-N` colours.

Charts are drawn with placeholder colours, which `as_svg` turns into CSS variables, so that one drawing
serves light and dark pages. Coordinates are pixels of the drawing (72 to the inch).
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, PAPER = "#010101", "#fefefe"  # placeholders: the text's colour, the surface's colour
FONT_STACK = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
FONT_PIXELS = 12
CHARACTER_PIXELS = 6.9  # of a bold label, generously


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


@contextmanager
def canvas(width: int, height: int, name: str) -> Iterator[tuple[Figure, Axes]]:
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


def draw_line(axes: Axes, xs: Sequence[float], ys: Sequence[float], style: Style, final: float = 8) -> None:
    """A run's line with small dots and a large last marker."""
    axes.plot(xs, ys, color=style.placeholder, linewidth=2.2, marker="o", markersize=3.5, clip_on=False, zorder=3)
    axes.plot(
        xs[-1:], ys[-1:], color=style.placeholder, marker=style.marker, markersize=final,
        markeredgecolor=PAPER, markeredgewidth=1.5, clip_on=False, zorder=5,
    )  # fmt: skip


def percent_axis(axes: Axes) -> None:
    """From 0 to 100%, with a mark each quarter."""
    axes.set_ylim(0, 104)
    axes.set_yticks([0, 25, 50, 75, 100], ["0%", "25%", "50%", "75%", "100%"])


def short(label: str) -> str:
    """A label that is not too long to be drawn."""
    return label if len(label) <= 20 else f"{label[:19]}…"


def label_points(
    axes: Axes, labels: Sequence[tuple[float, float, str, str]], busy: Sequence[tuple[float, float]]
) -> list[tuple[float, float]]:
    """Names points where the names hit least of the drawing; returns all occupied pixels."""
    taken = list(busy)
    left, low, right, high = axes.bbox.extents
    for x, y, label, colour in labels:
        (px, py), width = axes.transData.transform((x, y)), CHARACTER_PIXELS * len(short(label))
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
            short(label), (sx, sy), xycoords="figure pixels", color=colour, fontweight="bold", va="center",
            ha={0.0: "left", 0.5: "center", 1.0: "right"}[anchor], annotation_clip=False,
        )  # fmt: skip
        taken += [(sx + (part / 8 - anchor) * width, sy) for part in range(9)]
    return taken


def pixels_of(axes: Axes, lines: Sequence[Sequence[tuple[float, float]]]) -> list[tuple[float, float]]:
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


def point_better(axes: Axes, busy: Sequence[tuple[float, float]]) -> None:
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


def as_svg(figure: Figure, name: str, description: str) -> str:
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
