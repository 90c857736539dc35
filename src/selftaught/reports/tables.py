"""Numbers as words and as terminal tables; `html` uses the same words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

Report = Mapping[str, Any]
Run = Mapping[str, Any]
Share = Mapping[str, Any]

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"
NOTHING = "\N{EM DASH}"
NOT_SCORED = "not scored"


# ------------------------------------------------------------------------------------ who is who


def base_of(report: Report) -> Run | None:
    """The run that the others are compared with: the one named "base", if there are others."""
    runs = report["runs"]
    return next((run for run in runs if run["name"] == "base"), None) if len(runs) > 1 else None


def trained_of(report: Report) -> list[Run]:
    """Every run but the base, self-distillation first."""
    base = base_of(report)
    return sorted((run for run in report["runs"] if run is not base), key=lambda run: run.get("method") != "sdft")


def groups_of(report: Report) -> list[str]:
    """Names of the groups that any run was evaluated on, in the order of the data."""
    seen = [name for run in report["runs"] for name in run.get("accuracy") or {}]
    known = [name for name in (report.get("data") or {}).get("groups") or {} if name in seen]
    return list(dict.fromkeys(known + seen))


def main_group(report: Report) -> str | None:
    """The group that stands for what was taught: "taught" or "direct" if there is one, else the first."""
    groups = groups_of(report)
    return next((name for name in ("taught", "direct", *groups) if name in groups), None)


def probes_of(report: Report) -> list[str]:
    """Names of the probe families that any run was evaluated on."""
    return list(dict.fromkeys(name for run in report["runs"] for name in run.get("probes") or {}))


# --------------------------------------------------------------------------------------- numbers


def percent(value: float) -> str:
    """A share as whole percent; only a true 0 and a true 1 read as 0% and 100%."""
    shown = round(100 * value)
    if shown == 100 and value < 1:
        return ">99%"
    if shown == 0 and value > 0:
        return "<1%"
    return f"{shown}%"


def interval(share: Share) -> str:
    """The 95% interval of a share, in percent: "73–93"."""
    return f"{round(100 * share['low'])}{DASH}{round(100 * share['high'])}"


def signed(points: float) -> str:
    """A change in whole points with its sign: "+3", "−12", "±0"."""
    shown = round(points)
    return "±0" if shown == 0 else f"{'+' if shown > 0 else MINUS}{abs(shown)}"


def points(share: float | None, sign: bool = False) -> str:
    """A share or a change in percentage points, with a digit after the point: "61.2", "+3.0", "−0.4"."""
    if share is None:
        return NOTHING
    shown = round(100 * share, 1) + 0.0  # no minus before a zero
    return f"{shown:{'+' if sign else ''}.1f}".replace("-", MINUS)


def times(ratio: float) -> str:
    """A ratio: two digits after the point, fewer when it is large."""
    return f"{ratio:.{2 if abs(ratio) < 10 else 0}f}".replace("-", MINUS)


def nats(value: float) -> str:
    """A divergence in nats: two digits after the point, three when it is small."""
    return f"{value:.3f}" if 0 < abs(value) < 0.1 else f"{value:.2f}"


def duration(seconds: float) -> str:
    """A time as a person would say it: "48 s", "5 min 12 s", "2 h 5 min"."""
    total = round(seconds)
    if total < 60:
        return f"{total} s" if seconds >= 10 or seconds == total else f"{seconds:.1f} s"
    if total < 3600:
        return f"{total // 60} min {total % 60} s"
    return f"{total // 3600} h {total % 3600 // 60} min"


@dataclass(frozen=True)
class Change:
    """A run's share against the base's, in points, with a 95% interval."""

    points: float
    low: float
    high: float

    @property
    def beyond_noise(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def change(share: Share, base: Share) -> Change:
    """Difference of two shares with Newcombe's interval, made from their two Wilson intervals.

    It takes the two as independent. They answer the same items, so it errs towards "noise".
    """
    difference = share["value"] - base["value"]
    below = math.hypot(share["value"] - share["low"], base["high"] - base["value"])
    above = math.hypot(share["high"] - share["value"], base["value"] - base["low"])
    return Change(100 * difference, 100 * (difference - below), 100 * (difference + above))


def probe_mean(run: Run) -> float | None:
    """Mean of a run's probe families, each counting once."""
    values = [share["value"] for share in (run.get("probes") or {}).values()]
    return sum(values) / len(values) if values else None


# ----------------------------------------------------------------------------------------- words


def lift_line(lift: Mapping[str, Any] | None) -> str:
    """What the demonstration in the prompt does to the untrained model, as a sentence; "" if not measured."""
    if not lift:
        return ""
    shown, plain = lift["with"], lift["without"]
    line = (
        f"Shown the demonstration, the untrained model answers {shown['correct']} of {shown['total']} right "
        f"({percent(shown['value'])}), without it {plain['correct']} of {plain['total']} "
        f"({percent(plain['value'])}): a lift of {signed(100 * lift['lift']).lstrip('+')} points."
    )
    return f"{line} {lift['warning']}" if lift.get("warning") else line


def headline(report: Report) -> str:
    """The result in one or two plain sentences; "" if nothing was measured."""
    group, base = main_group(report), base_of(report)
    runs = [run for run in trained_of(report) if group in run["accuracy"]]
    if group is None or not runs:
        return ""
    if base is None:
        share = runs[0]["accuracy"][group]
        return (
            f"{runs[0]['label']} answers {share['correct']} of {share['total']} {group_words(group)} right "
            f"({percent(share['value'])})."
        )
    sentence = "; ".join(_clause(report, run, group, place == 0) for place, run in enumerate(runs)) + "."
    if group in base["accuracy"]:
        sentence += f" Before training it was {percent(base['accuracy'][group]['value'])}."
    return sentence


def _clause(report: Report, run: Run, group: str, first: bool) -> str:
    """One run's part of the headline; the first one says what is counted."""
    value = percent(run["accuracy"][group]["value"])
    facts = report["kind"] == "quickstart" and group == "direct"
    if facts:
        words = f"{run['label']} learned {value}" + (" of the new facts" if first else "")
    else:
        taught = "the questions it was taught" if group in ("taught", "direct") else f"the {group_words(group)}"
        words = f"{run['label']} answers {value}" + (f" of {taught} right" if first else "")
    if run.get("drift_nats") is None:
        return words
    moved = nats(run["drift_nats"])
    if first:
        return f"{words} and moved the model {moved} nats per token from where it was"
    return f"{words} and moved it {moved}"


def group_words(group: str) -> str:
    """A group within a sentence: "direct questions", "“hard” questions"."""
    known = {"direct": "direct", "paraphrase": "paraphrased", "indirect": "indirect"}
    return f"{known.get(group, f'“{group}”')} questions"


# -------------------------------------------------------------------------------- terminal table


@dataclass(frozen=True)
class Column:
    """A column of a terminal table. The lowest `rank` leaves first when room is short; None stays."""

    title: str
    cell: Callable[[Run], str]
    rank: int | None


def headline_table(report: Report, width: int | None = None) -> Table:
    """Runs as rows, what was measured as columns.

    Where it would be wider than the terminal, first the single probe families, then the intervals,
    then the least important columns are left out; nothing is ever wrapped.

    Args:
        report: see docs/report.md.
        width: columns there are; None asks the terminal.
    """
    forms = ((True, True), (True, False), (False, False))
    return fitting_table(
        "run", report["runs"], [_columns(report, intervals, families) for intervals, families in forms], width
    )


def knowledge_table(report: Report, width: int | None = None) -> Table:
    """What each run says about the documents: strictly right / nothing false and some of it right, by group."""
    known = report["knowledge"]

    def cell(group: str) -> Callable[[Run], str]:
        def words(run: Run) -> str:
            grades = known[run["name"]].get(group)
            return NOTHING if grades is None else graded(grades["strict"], grades["lenient"])

        return words

    main = main_group(report)
    columns = [
        Column(group, cell(group), None if group == main else -place) for place, group in enumerate(groups_of(report))
    ]
    return fitting_table("strict / lenient", report["runs"], [columns], width)


def graded(*accuracies: float | None) -> str:
    """Accuracies, or that nothing was scored."""
    return " / ".join(percent(value) for value in accuracies if value is not None) or NOT_SCORED


def fitting_table(
    title: str, rows: Sequence[Mapping[str, Any]], forms: Sequence[Sequence[Column]], width: int | None
) -> Table:
    """The first form that fits, else as many columns of the last one as fit.

    Args:
        title: what the rows are.
        rows: each with a "label", and what the columns read.
        forms: columns, in reading order, from the fullest choice of them to the leanest.
        width: columns there are; None asks the terminal.
    """
    from rich.console import Console

    width = Console().width if width is None else width
    ruler = Console(width=10_000)
    for form in forms:
        columns = [column for column in form if any(column.cell(row) != NOTHING for row in rows)]
        table = _build(title, rows, columns)
        if ruler.measure(table).maximum <= width:
            return table
    while ruler.measure(table).maximum > width:
        ranked = [column for column in columns if column.rank is not None]
        if not ranked:
            break
        columns.remove(min(ranked, key=lambda column: column.rank or 0))
        table = _build(title, rows, columns)
    return table


def _build(title: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=None)
    table.add_column(title, no_wrap=True, style="bold")
    for column in columns:
        table.add_column(Text(column.title), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(Text(row["label"]), *(Text(column.cell(row)) for column in columns))
    return table


def _columns(report: Report, intervals: bool, families: bool) -> list[Column]:
    """All columns that some run fills, in reading order."""
    main = main_group(report)
    columns = [
        Column(name, _share_cell("accuracy", name, intervals, None), None if name == main else 70 - place)
        for place, name in enumerate(groups_of(report))
    ]
    columns += _probe_columns(report, families)
    return [
        *columns,
        Column("drift", lambda run: _or_nothing(run.get("drift_nats"), nats), 90),
        Column("seconds", lambda run: _or_nothing(run.get("seconds"), lambda value: f"{value:.0f}"), 20),
        Column("GiB", lambda run: _or_nothing(run.get("peak_memory_gib"), lambda value: f"{value:.1f}"), 10),
    ]


def _probe_columns(report: Report, families: bool) -> list[Column]:
    base, names = base_of(report), probes_of(report)
    if families or len(names) < 2:
        return [Column(name, _share_cell("probes", name, False, base), 40) for name in names]
    columns = [Column("probes", lambda run: _mean_cell(run, base), 50)]
    if "formats" in names:
        columns.append(Column("formats", _share_cell("probes", "formats", False, base), 40))
    return columns


def _share_cell(field: str, name: str, intervals: bool, base: Run | None) -> Callable[[Run], str]:
    """A cell of percent, with its interval, or its change against `base`, where asked for."""

    def cell(run: Run) -> str:
        share = (run.get(field) or {}).get(name)
        if share is None:
            return NOTHING
        before = (base.get(field) or {}).get(name) if base is not None and run is not base else None
        if before is not None:
            return f"{percent(share['value'])} {signed(change(share, before).points):>3}"
        return f"{percent(share['value'])} ({interval(share)})" if intervals else percent(share["value"])

    return cell


def _mean_cell(run: Run, base: Run | None) -> str:
    mean, before = probe_mean(run), probe_mean(base) if base is not None and run is not base else None
    if mean is None:
        return NOTHING
    return percent(mean) if before is None else f"{percent(mean)} {signed(100 * (mean - before)):>3}"


def _or_nothing(value: float | None, words: Callable[[float], str]) -> str:
    return NOTHING if value is None else words(value)


def ended_itself(label: str, stopped: Mapping[str, Any]) -> str:
    """Of a run that the guard has ended: when, why, and what is kept."""
    return (
        f"{label} ended itself after step {stopped['at']}: {stopped['why']}. What it had learned by step "
        f"{stopped['kept']} is kept, and measured here."
    )
