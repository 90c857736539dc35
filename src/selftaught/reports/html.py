"""One self-contained page out of a report: no foreign fonts, scripts or images, readable offline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from selftaught.reports import charts
from selftaught.reports.judging import judging_lines
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
from selftaught.reports.reading import contexts_line, documents_lines
from selftaught.reports.tables import (
    NOTHING,
    base_of,
    change,
    duration,
    graded,
    groups_of,
    headline,
    interval,
    lift_line,
    main_group,
    nats,
    percent,
    probe_mean,
    probes_of,
    signed,
    trained_of,
)

SHOWN_ANSWERS = 40  # the others wait in a fold
MAX_LEARNING_CHARTS = 4

GROUP_NAMES = {
    "direct": ("Direct questions", "asked just as in training"),
    "paraphrase": ("Paraphrased", "the same questions in other words"),
    "indirect": ("Indirect", "new questions that need the fact"),
    "taught": ("Taught", "questions about the documents, just as in training"),
    "reworded": ("Reworded", "the same facts, asked for in words that were not taught"),
    "comparison": ("Comparisons", "over two documents, just as in training"),
    "multi_hop": ("Two steps", "what only two documents together answer, just as in training"),
    "unstated": ("Not stated", "what the documents do not say: right is to say so"),
    "telling": ("Tellings", "general requests about a document"),
    "neighbour": ("Neighbours", "of things that are not in the documents: right is what gives no taught answer"),
}
KINDS = {"quickstart": "quick start", "learn": "learning run", "evaluate": "evaluation"}


def write_report(report: dict[str, Any], folder: Path) -> tuple[Path, Path]:
    """Writes report.json and report.html, each whole or not at all.

    Args:
        report: see docs/report.md.
        folder: made if it is missing.

    Returns:
        The paths of report.json and report.html.

    Raises:
        ArtifactError: the report is of another schema, holds a number that is not finite, or cannot be written.
    """
    return write_pair(report, render_html(report), folder)


def render_html(report: dict[str, Any]) -> str:
    """The page of a report, as text.

    Raises:
        ArtifactError: the report is of another schema, or lacks a field that every report has.
    """
    return render(report, "report.html.j2", _view)


def _view(report: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the template shows, in words."""
    styles = charts.run_styles(report["runs"])
    main = main_group(report)
    return {
        "title": report["title"],
        "kind": KINDS.get(report["kind"], report["kind"]),
        "created": report["created"],
        "headline": headline(report),
        "comparisons": [row["statement"] for row in report.get("comparisons") or []],
        "model": report["model"],
        "data": _data_words(report.get("data") or {}),
        "styles": list(styles.values()),
        "runs": [{"label": run["label"], "style": styles[run["name"]]} for run in report["runs"]],
        "sections": _sections(report),
        "lift": _lift(report.get("lift")),
        "learning": _learning(report),
        "plane": charts.plane_chart(report, main, "plane") if main is not None else None,
        "losses": _losses(report),
        "answers": _answers(report),
        "checks": report.get("checks") or [],
        "configs": settings([(run["label"], run.get("config"), run.get("model_dir")) for run in report["runs"]]),
        "facts": facts(report, [*_data_facts(report.get("data") or {}), *_read_facts(report), *_judge_facts(report)]),
        "has_best": len(trained_of(report)) > 1,
        "has_probe_changes": bool(base_of(report) and probes_of(report)),
    }


# ---------------------------------------------------------------------------------- results table


def _sections(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The results table in three parts: what was learned, what was kept, what it cost."""
    learned = [_accuracy_row(report, name) for name in groups_of(report)]
    learned += _graded_rows(report)
    kept = [_probe_row(report, name) for name in probes_of(report)]
    if len(kept) > 1:
        kept.append(_mean_row(report))
    kept += _plain_row(report, "drift_nats", "Drift", "nats per token away from the base; less is better", nats)
    cost = [
        *_plain_row(report, "seconds", "Training time", "", duration),
        *_plain_row(report, "steps", "Optimiser steps", "", str, compare=False),
        *_plain_row(report, "tokens", "Tokens learned from", "", thousands, compare=False),
        *_plain_row(report, "peak_memory_gib", "Peak memory", "", lambda value: f"{value:.1f} GiB"),
    ]
    parts = (("Learned", learned), ("Kept", kept), ("Cost", cost))
    return [{"title": title, "rows": rows} for title, rows in parts if rows]


def _accuracy_row(report: Mapping[str, Any], name: str) -> Row:
    label, hint = GROUP_NAMES.get(name, (spaced(name), ""))
    if name == "direct" and "taught" in groups_of(report):
        hint = "about the documents, none of them taught"
    row = Row(label, hint)
    shares = [run["accuracy"].get(name) for run in report["runs"]]
    total = next((share["total"] for share in shares if share), 0)
    row.count = f"{total} asked" if total else ""
    for share in shares:
        if share is None:
            row.cells.append(Cell(NOTHING))
            continue
        bar = {"low": 100 * share["low"], "span": 100 * (share["high"] - share["low"]), "at": 100 * share["value"]}
        row.cells.append(Cell(percent(share["value"]), interval(share), bar=bar))
    mark_best(row, _rivals(report, [share and share["value"] for share in shares]), max)
    return row


def _probe_row(report: Mapping[str, Any], name: str) -> Row:
    base, row = base_of(report), Row(spaced(name), "")
    before = ((base or {}).get("probes") or {}).get(name)
    shares = [(run.get("probes") or {}).get(name) for run in report["runs"]]
    for run, share in zip(report["runs"], shares, strict=True):
        if share is None:
            row.cells.append(Cell(NOTHING))
        elif before is None or run is base:
            row.cells.append(Cell(percent(share["value"]), interval(share) if base is None else ""))
        else:
            moved = change(share, before)
            tone = ("up" if moved.points > 0 else "down") if moved.beyond_noise else ""
            row.cells.append(Cell(percent(share["value"]), _change_words(moved.points, tone), tone))
    mark_best(row, _rivals(report, [share and share["value"] for share in shares]), max)
    return row


def _mean_row(report: Mapping[str, Any]) -> Row:
    """Mean of the probe families; no interval is claimed for it, so it is never coloured."""
    base, row = base_of(report), Row("Mean of these", "each probe counts once")
    before = probe_mean(base) if base else None
    means = [probe_mean(run) for run in report["runs"]]
    for run, mean in zip(report["runs"], means, strict=True):
        detail = "" if mean is None or before is None or run is base else _change_words(100 * (mean - before), "")
        row.cells.append(Cell(NOTHING if mean is None else percent(mean), detail))
    mark_best(row, _rivals(report, means), max)
    return row


def _change_words(points: float, tone: str) -> str:
    return {"up": "▲ ", "down": "▼ ", "": ""}[tone] + signed(points)


def _plain_row(
    report: Mapping[str, Any], key: str, label: str, hint: str, words: Callable[[Any], str], compare: bool = True
) -> list[Row]:
    """A row of plain numbers, of which the least is the best; no row if no run has one (but the base a zero)."""
    base, row = base_of(report), Row(label, hint)
    values = [run.get(key) for run in report["runs"]]
    if not any(value is not None and run is not base for run, value in zip(report["runs"], values, strict=True)):
        return []
    row.cells = [Cell(NOTHING if value is None else unbroken(words(value))) for value in values]
    if compare:
        mark_best(row, _rivals(report, values), min)
    return [row]


def _graded_rows(report: Mapping[str, Any]) -> list[Row]:
    """Of runs on documents: how strictly and how leniently right the answers are."""
    known = report.get("knowledge") or {}
    hints = {"strict": "right, and nothing false", "lenient": "some of it right, and nothing false"}
    rows = []
    for group in groups_of(report) if known else []:
        if group == "neighbour":  # there is only one way to be right
            continue
        for grade, hint in hints.items():
            found = [known[run["name"]].get(group) for run in report["runs"]]
            values = [one and one[grade] for one in found]
            row = Row(f"{GROUP_NAMES.get(group, (group, ''))[0]}, {grade}", hint)
            row.cells = [Cell(NOTHING if one is None else graded(one[grade])) for one in found]
            mark_best(row, _rivals(report, values), max)
            rows.append(row)
    return rows


def _rivals(report: Mapping[str, Any], values: Sequence[float | None]) -> list[float | None]:
    """The trained runs' values; the base does not compete."""
    base = base_of(report)
    return [None if run is base else value for run, value in zip(report["runs"], values, strict=True)]


# ------------------------------------------------------------------------------- the other sections


def _lift(lift: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not lift:
        return None
    bars = [("without the demonstration", lift["without"]), ("with it in the prompt", lift["with"])]
    return {
        "line": lift_line({**lift, "warning": None}),
        "warning": lift.get("warning"),
        "bars": [{"label": label, "text": percent(bar["value"]), "width": 100 * bar["value"]} for label, bar in bars],
    }


def _learning(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """A chart for each of the first groups that curves were measured on."""
    drawn: list[dict[str, str]] = []
    for index, name in enumerate(groups_of(report)):
        chart = charts.learning_chart(report, name, f"learning{index}")
        if chart is not None and len(drawn) < MAX_LEARNING_CHARTS:
            title, hint = GROUP_NAMES.get(name, (spaced(name), ""))
            drawn.append({"title": title, "hint": hint, "svg": chart})
    return drawn


def _losses(report: Mapping[str, Any]) -> list[dict[str, str]]:
    drawn = ((run, charts.loss_chart(report, run, f"loss{index}")) for index, run in enumerate(report["runs"]))
    return [{"label": run["label"], "svg": chart} for run, chart in drawn if chart is not None]


def _answers(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """Answers side by side; those shown at first are taken evenly from all groups."""
    rows = report.get("answers") or []
    if not rows:
        return None
    groups = list(dict.fromkeys(row["group"] for row in rows))
    by_group = {name: [row for row in rows if row["group"] == name] for name in groups}
    quota, first, rest = -(-SHOWN_ANSWERS // len(groups)), [], []
    for members in by_group.values():
        first += members[:quota]
        rest += members[quota:]
    rest = first[SHOWN_ANSWERS:] + rest
    present = [name for name in groups_of(report) if name in groups]
    groups = present + [name for name in groups if name not in present]
    names = [(name, GROUP_NAMES.get(name, (spaced(name), ""))[0]) for name in groups]
    return {
        "groups": names,
        "shown": [_answer(report, row) for row in first[:SHOWN_ANSWERS]],
        "rest": [_answer(report, row) for row in rest],
        "total": len(rows),
        "can_differ": len(report["runs"]) > 1,
        "rivals": "the trained models" if len(trained_of(report)) > 1 else "before and after",
    }


def _answer(report: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    styles, given = charts.run_styles(report["runs"]), row["answers"]
    rivals = [run["name"] for run in trained_of(report)]
    rivals = rivals if len(rivals) > 1 else [run["name"] for run in report["runs"]]
    verdicts = {given[name]["correct"] for name in rivals if name in given}
    return {
        "group": row["group"],
        "group_label": GROUP_NAMES.get(row["group"], (spaced(row["group"]), ""))[0],
        "question": row["question"],
        "expected": row["expected"],
        "differs": len(verdicts) > 1,
        "given": [
            {"label": run["label"], "index": styles[run["name"]].index, **answer_text(given[run["name"]])}
            for run in report["runs"]
            if run["name"] in given
        ],
    }


def _data_words(data: Mapping[str, Any]) -> str:
    if not data:
        return ""
    items = data.get("train_items")
    return f"{data['name']} ({items} to learn)" if items else str(data["name"])


def _read_facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What became of the documents, a reason a row."""
    if not report.get("documents"):
        return []
    first, *noted = documents_lines(report["documents"])
    cut = contexts_line(report.get("contexts") or [])
    told = [("Documents", first.removeprefix("Documents: ")), *(("", line.strip()) for line in noted)]
    return [*told, ("Contexts", cut)] if cut else told


def _judge_facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [("" if number else "Answers", line) for number, line in enumerate(judging_lines(report))]


def _data_facts(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    groups = ", ".join(f"{name} {count}" for name, count in (data.get("groups") or {}).items())
    words = f"{data['name']} ({groups})" if groups else data.get("name", "")
    return [("Data", words), ("Data hash", data.get("hash") or "")]
