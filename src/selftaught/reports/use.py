"""The simulation of use as one report: after each lesson, how many answers still need to be corrected.

An answer *needs correction* where the fact or the sign-off is missing; every fact is asked in words that are never
taught. *Again* counts only the facts that the user has asked for by then. Intervals hold 95% over seeds and events, see
`resampling`; the facts of one event are drawn together.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from selftaught._version import __version__
from selftaught.reports.compose import machine
from selftaught.reports.tables import interval, nats, percent, points

if TYPE_CHECKING:
    from rich.table import Table

    from selftaught.reports.resampling import Draws, Floats

Record = Mapping[str, Any]
Runs = Mapping[str, Mapping[int, Sequence[Record]]]
FACT, SIGNED = "the fact", "the sign-off"
HELD = 0.03  # of the probes: the gate's tolerance
NUM_EXAMPLES = 4
COSTS = ("seconds", "steps", "tokens")


def compose_use(
    facts: Sequence[Mapping[str, Any]], base: Record, runs: Runs, labels: Mapping[str, str], sign_off: str
) -> dict[str, Any]:
    """A report of lessons from use, by several methods with the same seeds.

    Args:
        facts: what was asked: {"id", "event", "lesson", "question"}.
        base: the untaught model's record; its "again" holds, of each fact, {"fact", "signed", "completion"}.
        runs: of each method and seed, such a record after each lesson, and in "heard" what was said before it.
        labels: how to call the methods.
        sign_off: how every answer was to end.
    """
    from selftaught.reports import resampling
    from selftaught.reports.resampling import estimate

    families = [name for name, suite in base["suites"].items() if suite["kind"] == "probe"]
    stages = {
        method: {seed: [_right(facts, families, record) for record in chain] for seed, chain in chains.items()}
        for method, chains in runs.items()
    }
    draws = resampling.draw(_right(facts, families, base), stages, _clusters(facts, families, base))
    num = max(fact["lesson"] for fact in facts)
    summary = [_summary(draws, num, families, method, runs[method], labels[method]) for method in runs]
    seeds = list(next(iter(runs.values())))
    found = {
        "schema": 1,
        "kind": "use",
        "created": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "selftaught": __version__,
        "title": "Learning from use",
        "model": dict(base["model"]),
        "machine": machine(max(r.get("processes") or 1 for c in runs.values() for chain in c.values() for r in chain)),
        "labels": {method: labels[method] for method in runs},
        "seeds": seeds,
        "lessons": num,
        "facts": len(facts),
        "sign_off": sign_off,
        "base": {
            "needs": estimate(_needs(draws.base, num)),
            "fact": estimate(draws.base[FACT]),
            "signed": estimate(draws.base[SIGNED]),
            "probes": {name: estimate(draws.base[name]) for name in families},
            "probe_mean": estimate(_mean([draws.base[name] for name in families])) if families else None,
        },
        "summary": summary,
        "differences": _differences(draws, num, families, list(runs)),
        "intervals": {"draws": resampling.NUM_DRAWS, "resampled": (["seeds"] if len(seeds) > 1 else []) + ["events"]},
        "runs": [_run(method, seed, chain) for method, chains in runs.items() for seed, chain in chains.items()],
        "examples": _examples(facts, base, runs),
    }
    return {**found, "checks": _checks(found)}


def _lesson(number: int) -> str:
    return f"asked before lesson {number}"


def _right(facts: Sequence[Mapping[str, Any]], families: Sequence[str], record: Record) -> dict[str, list[bool]]:
    """What a model had right, by suite: facts and sign-offs, both by lesson, and the probes."""
    marks = record["again"]
    found = {FACT: [mark["fact"] for mark in marks], SIGNED: [mark["signed"] for mark in marks]}
    for fact, mark in zip(facts, marks, strict=True):
        found.setdefault(_lesson(fact["lesson"]), []).append(mark["fact"] and mark["signed"])
    return found | {name: [item["correct"] for item in record["suites"][name]["results"]] for name in families}


def _clusters(facts: Sequence[Mapping[str, Any]], families: Sequence[str], base: Record) -> dict[str, list[str]]:
    """Facts of one event stand together; a probe stands alone."""
    found = {name: [fact["event"] for fact in facts] for name in (FACT, SIGNED)}
    for fact in facts:
        found.setdefault(_lesson(fact["lesson"]), []).append(fact["event"])
    return found | {name: [item["id"] for item in base["suites"][name]["results"]] for name in families}


# ---------------------------------------------------------------------------------------- numbers


def _needs(right: Mapping[str, Floats], lessons: int) -> Any:
    """The share of answers that need correction, of the facts of the first lessons: each has as many."""
    return 1 - _mean([right[_lesson(number)] for number in range(1, lessons + 1)])


def _mean(arrays: Sequence[Any]) -> Any:
    return sum(arrays) / len(arrays)


def _summary(
    draws: Draws, num: int, families: Sequence[str], method: str, chains: Mapping[int, Sequence[Record]], label: str
) -> dict[str, Any]:
    """What one method came to, lesson by lesson, over its seeds."""
    from selftaught.reports.resampling import estimate, over_few

    means = {name: draws.over_seeds(method, values) for name, values in draws.stages[method].items()}  # [B, N]
    after = [{name: values[:, place] for name, values in means.items()} for place in range(num)]
    records = [record for chain in chains.values() for record in chain]
    drifts = [[chain[place]["drift_nats"] for chain in chains.values()] for place in range(num)]
    return {
        "method": method,
        "label": label,
        "needs": [estimate(_needs(one, num)) for one in after],
        "again": [estimate(_needs(one, place)) for place, one in enumerate(after, 1)],
        "fact": [estimate(one[FACT]) for one in after],
        "signed": [estimate(one[SIGNED]) for one in after],
        "probes": {name: _probe(draws, after, [name]) for name in families},
        "probe_mean": _probe(draws, after, families) if families else None,
        "drift_nats": None if any(None in values for values in drifts) else [over_few(values) for values in drifts],
        "heard": [_heard([chain[place]["heard"] for chain in chains.values()]) for place in range(num)],
        **{cost: sum(record[cost] or 0 for record in records) / len(chains) for cost in COSTS},
    }


def _probe(draws: Draws, after: Sequence[Mapping[str, Floats]], families: Sequence[str]) -> dict[str, Any]:
    from selftaught.reports.resampling import estimate

    stages = [_mean([one[name] for name in families]) for one in after]
    before = _mean([draws.base[name] for name in families])
    return {"stages": [estimate(values) for values in stages], "forgotten": estimate(before - stages[-1])}


def _heard(chains: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What was said before a lesson, as the mean of the seeds."""
    return {name: fmean(one[name] for one in chains) for name in ("conversations", "corrected", "rows")}


def _differences(draws: Draws, num: int, families: Sequence[str], methods: Sequence[str]) -> list[dict[str, Any]]:
    """The first method against each other one after the last lesson, paired."""
    from selftaught.reports.resampling import estimate

    last = {
        method: {name: draws.over_seeds(method, values)[:, -1] for name, values in draws.stages[method].items()}
        for method in methods
    }
    ours, *rivals = methods
    return [
        {
            "methods": [ours, rival],
            "needs": estimate(_needs(last[ours], num) - _needs(last[rival], num)),
            "probes": estimate(_mean([last[ours][name] - last[rival][name] for name in families]))
            if families
            else None,
        }
        for rival in rivals
    ]


def _run(method: str, seed: int, chain: Sequence[Record]) -> dict[str, Any]:
    """One method with one seed, lesson by lesson, without its answers."""
    fields = ("drift_nats", "heard", *COSTS, "stopped", "config")
    lessons = []
    for record in chain:
        fine = [mark["fact"] and mark["signed"] for mark in record["again"]]
        lessons.append({"needs": 1 - fmean(fine), **{field: record[field] for field in fields}})
    return {"method": method, "seed": seed, "lessons": lessons}


def _examples(facts: Sequence[Mapping[str, Any]], base: Record, runs: Runs) -> list[dict[str, Any]]:
    """Some answers at the end, of each method's first seed: evenly taken over the lessons, not chosen."""
    firsts = {method: next(iter(chains.values())) for method, chains in runs.items()}
    wanted = min(NUM_EXAMPLES, len(facts))
    places = [index * len(facts) // wanted for index in range(wanted)]
    return [
        {
            "question": facts[place]["question"],
            "lesson": facts[place]["lesson"],
            "base": _said(base["again"][place]),
            "methods": {method: _said(chain[-1]["again"][place]) for method, chain in firsts.items()},
        }
        for place in places
    ]


def _said(mark: Mapping[str, Any]) -> dict[str, Any]:
    return {"text": mark["completion"], "correct": bool(mark["fact"] and mark["signed"])}


# ------------------------------------------------------------------------------------------ words


def _checks(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the simulation sets out to show of the first method, and whether it did; judged by the values."""
    ours = report["summary"][0]
    before, last = report["base"]["needs"]["value"], ours["needs"][-1]
    path = [before, *(one["value"] for one in ours["needs"])]
    falls = all(after < earlier for earlier, after in pairwise(path))
    rows = [
        (f"{ours['label']}'s answers that need correction", "fewer after every lesson",
         f"{_path(path)} ({interval(last)})", falls)
    ]  # fmt: skip
    if ours["probe_mean"] is not None:
        lost = ours["probe_mean"]["forgotten"]
        limits = f"{points(lost['low'])} to {points(lost['high'])}"
        rows.append(
            (f"What {ours['label']} loses on the probes", f"≤ {points(HELD)} points",
             f"{points(lost['value'])} points ({limits})", lost["value"] <= HELD)
        )  # fmt: skip
    for pair in report["differences"]:
        more, rival = pair["needs"], report["labels"][pair["methods"][1]]
        limits = f"{points(more['low'], True)} to {points(more['high'], True)}"
        rows.append(
            (f"{ours['label']}'s answers that need correction, at the end", f"no more than {rival}'s",
             f"{points(more['value'], True)} points ({limits})", more["value"] <= 0)
        )  # fmt: skip
    return [{"name": name, "target": target, "value": value, "met": bool(met)} for name, target, value, met in rows]


def _path(values: Sequence[float]) -> str:
    return " → ".join(percent(value) for value in values)


def use_headline(report: Mapping[str, Any]) -> str:
    """The result in a sentence."""
    paths = [
        f"{row['label']} {_path([report['base']['needs']['value'], *(one['value'] for one in row['needs'])])}"
        for row in report["summary"]
    ]
    return f"Answers that need correction, lesson after lesson: {'; '.join(paths)}."


def use_table(report: Mapping[str, Any]) -> Table:
    """For the terminal: a row for the base and for each method after each lesson."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("model", "lesson", "need correction", "again", "fact", "sign-off", "probes", "drift"):
        table.add_column(title, justify="left" if title == "model" else "right")
    base, known = report["base"], report["base"]["probe_mean"]
    table.add_row(
        "base", "", _cell(base["needs"]), "", _cell(base["fact"]), _cell(base["signed"]),
        percent(known["value"]) if known else "", "",
    )  # fmt: skip
    for row in report["summary"]:
        for place in range(report["lessons"]):
            probes = percent(row["probe_mean"]["stages"][place]["value"]) if row["probe_mean"] else ""
            drift = nats(row["drift_nats"][place]["value"]) if row["drift_nats"] else ""
            shares = [_cell(row[name][place]) for name in ("needs", "again", "fact", "signed")]
            table.add_row(row["label"], str(place + 1), *shares, probes, drift)
    return table


def _cell(share: Mapping[str, Any]) -> str:
    return f"{percent(share['value'])} ({interval(share)})"


def write_use(report: dict[str, Any], folder: Path) -> tuple[Path, Path]:
    """Writes report.json and report.html, each whole or not at all.

    Raises:
        ArtifactError: they cannot be written.
    """
    from selftaught.reports.page import write_pair
    from selftaught.reports.use_html import render_use

    return write_pair(report, render_use(report), folder)
