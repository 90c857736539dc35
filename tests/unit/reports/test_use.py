"""The simulation's report on made-up records: what it counts, its intervals, and what it claims."""

from __future__ import annotations

import io
import random
from typing import Any

import pytest
from pages import Page, check_drawings, check_ids, check_loads_nothing
from rich.console import Console

from selftaught.reports.use import compose_use, use_headline, use_table
from selftaught.reports.use_html import render_use

LESSONS, EVENTS = 3, 2
FACTS = [
    {"id": f"e{lesson}{event}{n}", "event": f"e{lesson}{event}", "lesson": lesson, "question": f"Q{lesson}{event}{n}?"}
    for lesson in range(1, LESSONS + 1)
    for event in range(EVENTS)
    for n in range(4)
]


def record(right: set[str], probes: int, **more: Any) -> dict[str, Any]:
    marks = [{"fact": f["id"] in right, "signed": f["id"] in right, "completion": f"<{f['id']}>"} for f in FACTS]
    results = [{"id": f"p{n}", "correct": n < probes} for n in range(20)]
    blank = {"seconds": None, "steps": None, "tokens": None, "stopped": None, "config": None, "drift_nats": 0.0}
    return {"again": marks, "suites": {"facts": {"kind": "probe", "results": results}}, **blank, **more}


def chain(method: str, seed: int, share: float) -> list[dict[str, Any]]:
    """After each lesson a share of what was asked for so far is right."""
    noise, config = random.Random(f"{method}{seed}"), {"method": method}
    heard = {"conversations": 10, "corrected": 5, "rows": 4}
    return [
        record(
            {fact["id"] for fact in FACTS if fact["lesson"] <= lesson and noise.random() < share},
            18 if method == "sdft" else 10,
            **{
                "seconds": 60.0,
                "steps": 10,
                "tokens": 100,
                "config": config,
                "heard": heard,
                "drift_nats": 0.1 * lesson,
            },
        )
        for lesson in range(1, LESSONS + 1)
    ]


def composed(seeds: tuple[int, ...] = (0, 1, 2)) -> tuple[dict[str, Any], dict[str, dict[int, Any]]]:
    runs = {m: {s: chain(m, s, share) for s in seeds} for m, share in (("sdft", 0.9), ("sft", 0.4))}
    base = record(set(), 18, model={"name": "tiny"})
    return compose_use(FACTS, base, runs, {"sdft": "SDFT", "sft": "SFT"}, "Stay safe!"), runs


def needs(one: dict[str, Any], lessons: int) -> float:
    wanted = [mark for fact, mark in zip(FACTS, one["again"], strict=True) if fact["lesson"] <= lessons]
    return sum(not (mark["fact"] and mark["signed"]) for mark in wanted) / len(wanted)


def test_the_curves_are_the_means_over_seeds_of_what_is_counted_one_by_one() -> None:
    report, runs = composed()
    for row in report["summary"]:
        chains = runs[row["method"]].values()
        for place in range(LESSONS):
            for name, lessons in (("needs", LESSONS), ("again", place + 1)):
                expected = sum(needs(one[place], lessons) for one in chains) / len(chains)
                found = row[name][place]
                assert found["value"] == pytest.approx(expected)
                assert found["low"] <= expected <= found["high"]
                assert found["low"] < found["high"]
        assert row["seconds"] == 180
    ours, theirs = report["summary"]
    (pair,) = report["differences"]
    assert pair["needs"]["value"] == pytest.approx(ours["needs"][-1]["value"] - theirs["needs"][-1]["value"])
    assert pair["needs"]["high"] < 0, "far apart, and paired"
    assert theirs["probe_mean"]["forgotten"]["value"] == pytest.approx(0.4)
    assert report["intervals"]["resampled"] == ["seeds", "events"]
    assert [check["met"] for check in report["checks"]] == [True, True, True]


def test_the_checks_can_fail() -> None:
    _, runs = composed()
    report = compose_use(FACTS, record(set(), 18, model={"name": "tiny"}), {"sft": runs["sft"], "sdft": runs["sdft"]},
                         {"sdft": "SDFT", "sft": "SFT"}, "Stay safe!")  # fmt: skip
    assert [check["met"] for check in report["checks"]][1:] == [False, False], "of the method that is named first"


def test_one_seed_says_so() -> None:
    report, _ = composed((7,))
    assert report["intervals"]["resampled"] == ["events"]
    assert report["summary"][0]["drift_nats"][0]["low"] is None
    assert "Only one seed was run" in render_use(report)
    assert "Only one seed" not in render_use(composed()[0])


def test_words_and_table() -> None:
    report, _ = composed()
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(use_table(report))
    lines = console.export_text().splitlines()
    assert len(lines) == 2 + 2 * LESSONS
    assert use_headline(report).startswith("Answers that need correction, lesson after lesson: SDFT 100% →")
    text = render_use(report)
    assert "Before lesson 3" in text and "Stay safe!" in text
    assert text.count("<svg") == 4
    page = Page(text)
    check_loads_nothing(text, page)
    check_ids(page)
    check_drawings(text)
