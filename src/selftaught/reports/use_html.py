"""The page of a simulation of use; `page`, the templates and `sequence_html` hold what it shares with others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from selftaught.reports.charts import run_styles
from selftaught.reports.drawing import Style
from selftaught.reports.page import Cell as TableCell
from selftaught.reports.page import Row, answer_text, facts, mark_best, render, settings, spaced
from selftaught.reports.sequence_charts import Series, drift_chart, share_chart
from selftaught.reports.sequence_html import NO_DRIFT, cost_row, drift_row, each, fallen_row, share_row
from selftaught.reports.tables import NOTHING, duration, ended_itself, percent, points
from selftaught.reports.use import use_headline

Report = Mapping[str, Any]


def render_use(report: Report) -> str:
    """The page, as text.

    Raises:
        ArtifactError: the report is of another schema, or lacks a field that every report has.
    """
    return render(report, "use.html.j2", _view)


def _view(report: Report) -> dict[str, Any]:
    """Everything that the template shows, in words."""
    names = [{"name": "base"}, *({"name": row["method"], "method": row["method"]} for row in report["summary"])]
    styles = run_styles(names)
    labels = ["base", *each(report["summary"], "label")]
    seeds = report["seeds"]
    return {
        "title": report["title"],
        "created": report["created"],
        "headline": use_headline(report),
        "comparisons": [_comparison(report, pair) for pair in report["differences"]],
        "model": report["model"],
        "lessons": report["lessons"],
        "sign_off": report["sign_off"],
        "seeds": f"{len(seeds)} seeds a method" if len(seeds) > 1 else "one seed",
        "one_seed": len(seeds) < 2,
        "draws": report["intervals"]["draws"],
        "styles": list(styles.values()),
        "runs": [{"label": label, "style": style} for label, style in zip(labels, styles.values(), strict=True)],
        "sections": _sections(report),
        "charts": _charts(report, styles),
        "stopped": [
            ended_itself(f"{report['labels'][run['method']]}, seed {run['seed']}, lesson {n},", one["stopped"])
            for run in report["runs"]
            for n, one in enumerate(run["lessons"], 1)
            if one["stopped"]
        ],
        "examples": _examples(report, styles),
        "checks": report["checks"],
        "configs": settings(_configs(report)),
        "facts": facts(report, [("Facts", str(report["facts"])), ("Seeds", ", ".join(map(str, seeds)))]),
    }


def _comparison(report: Report, pair: Mapping[str, Any]) -> str:
    """The first method beside another one, in a sentence."""
    ours, theirs = (report["labels"][method] for method in pair["methods"])
    more, kept = pair["needs"], pair["probes"]
    text = (
        f"After the last lesson {points(abs(more['value']))} points {'more' if more['value'] > 0 else 'fewer'} of "
        f"{ours}'s answers need correction than of {theirs}'s ({points(more['low'])} to {points(more['high'])})"
    )
    if kept is not None:
        side = "above" if kept["value"] >= 0 else "below"
        text += (
            f"; on the probes {ours} is {points(abs(kept['value']))} points {side} "
            f"({points(kept['low'])} to {points(kept['high'])})"
        )
    return f"{text}."


def _sections(report: Report) -> list[dict[str, Any]]:
    """The results table: what is needed at the end, what was kept, what it cost."""
    base, summary = report["base"], report["summary"]
    last = {name: [row[name][-1] for row in summary] for name in ("needs", "fact", "signed")}
    wanted = [
        share_row("Need correction", f"{report['facts']} asked, in new words", base["needs"], last["needs"], min),
        share_row("The fact is right", "", base["fact"], last["fact"]),
        share_row("Ends as is wished", "", base["signed"], last["signed"]),
    ]
    moved = [
        fallen_row(Row(spaced(name), ""), before, [row["probes"][name] for row in summary])
        for name, before in base["probes"].items()
    ]
    if base["probe_mean"] is not None:
        moved.append(
            fallen_row(Row("Mean of these", "each counts once"), base["probe_mean"], each(summary, "probe_mean"))
        )
    parts = [
        ("After the last lesson", wanted),
        ("Conversations that called for a correction", [_heard_row(report, n) for n in range(report["lessons"])]),
        ("Kept of the base", [*moved, *drift_row(summary)]),
        ("Cost", cost_row(summary, "seconds", "Training time, all lessons", duration)),
    ]
    return [{"title": title, "rows": rows} for title, rows in parts if rows]


def _heard_row(report: Report, lesson: int) -> Row:
    """How often the user had something to correct before a lesson, and what was taught of it."""
    heard = [row["heard"][lesson] for row in report["summary"]]
    shares = [one["corrected"] / one["conversations"] for one in heard]
    row = Row(f"Before lesson {lesson + 1}", f"{heard[0]['conversations']:.0f} conversations")
    row.cells = [TableCell(NOTHING)]
    row.cells += [TableCell(percent(share), f"{one['rows']:.0f} rows taught") for share, one in zip(shares, heard)]
    mark_best(row, [None, *shares], min)
    return row


def _charts(report: Report, styles: Mapping[str, Style]) -> list[dict[str, str]]:
    base, summary = report["base"], report["summary"]
    order, drawn = [f"lesson {number}" for number in range(1, report["lessons"] + 1)], []

    def series(before: Mapping[str, Any], stages: Callable[[Any], Sequence[Mapping[str, Any]]]) -> list[Series]:
        return [Series(row["label"], styles[row["method"]], [before, *stages(row)]) for row in summary]

    shares: list[tuple[str, str, str]] = [
        ("needs", "Need correction", "of all facts, in words never taught"),
        ("again", "Need correction again", "of the facts asked for so far"),
    ]
    for name, title, hint in shares:
        lines = series(base["needs"], lambda row, name=name: row[name])  # type: ignore[misc]
        drawn.append({"title": title, "hint": hint, "svg": share_chart(lines, order, title, None, name)})
    if base["probe_mean"] is not None:
        lines = series(base["probe_mean"], lambda row: row["probe_mean"]["stages"])
        chart = share_chart(lines, order, "Mean accuracy on the probes", None, "probes", whole=False)
        drawn.append({"title": "Probes", "hint": "mean of the families", "svg": chart})
    if all(row["drift_nats"] for row in summary):
        chart = drift_chart(series(NO_DRIFT, lambda row: row["drift_nats"]), order, "drift")
        drawn.append({"title": "Drift", "hint": "nats per token away from the base", "svg": chart})
    return drawn


def _examples(report: Report, styles: Mapping[str, Style]) -> list[dict[str, Any]]:
    return [
        {
            "question": row["question"],
            "lesson": row["lesson"],
            "given": [
                {"label": report["labels"].get(name, name), "index": styles[name].index, **answer_text(said)}
                for name, said in (("base", row["base"]), *row["methods"].items())
            ],
        }
        for row in report["examples"]
    ]


def _configs(report: Report) -> list[tuple[str, Any, None]]:
    """Each method's settings in its first lesson of its first seed: others differ in seed and number of steps."""
    firsts: dict[str, Any] = {}
    for run in report["runs"]:
        firsts.setdefault(run["method"], next((one["config"] for one in run["lessons"] if one["config"]), None))
    return [(report["labels"][method], config, None) for method, config in firsts.items()]
