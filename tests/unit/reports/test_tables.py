from __future__ import annotations

import copy
from typing import Any

import pytest
import sample
from rich.console import Console

from selftaught.reports import headline, headline_table, lift_line
from selftaught.reports.tables import change, duration, knowledge_table, main_group, nats, percent, signed


def shown(report: dict[str, Any], width: int) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(headline_table(report, width))
    return capture.get()


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_terminal_table_fits_without_wrapping(width: int) -> None:
    lines = shown(sample.quickstart(), width).rstrip().splitlines()
    assert max(map(len, lines)) <= width
    rows = [line for line in lines if line.strip() and "─" not in line]
    assert len(rows) == 5, "a header and one line a run"
    assert "…" not in "".join(lines)
    assert "direct" in rows[0] and "drift" in rows[0]


def test_wide_terminals_get_intervals_and_narrow_ones_the_essentials() -> None:
    report = sample.quickstart()
    assert "92% (80–97)" in shown(report, 120)
    assert "arithmetic" in shown(report, 200)
    narrow = shown(report, 80)
    assert "92%" in narrow and "(80–97)" not in narrow
    assert "formats" in narrow and "probes" in narrow and "indirect" in narrow
    assert "57%  −5" in narrow, "probe families stand with their change against the base"


def test_table_of_one_run_without_extras() -> None:
    report = sample.quickstart()
    run = {**report["runs"][0], "name": "model", "label": "[red]model", "probes": {}, "drift_nats": None}
    report["runs"] = [run]
    text = shown(report, 80)
    assert "[red]model" in text, "labels are text, not markup"
    assert "drift" not in text and "probes" not in text and "seconds" not in text


def test_lift_line() -> None:
    report = sample.quickstart()
    line = lift_line(report["lift"])
    assert line == (
        "Shown the demonstration, the untrained model answers 45 of 48 right (94%), "
        "without it 1 of 48 (2%): a lift of 92 points."
    )
    assert lift_line({**report["lift"], "warning": "It is small."}).endswith("points. It is small.")
    assert lift_line({**report["lift"], "lift": -0.03}).endswith("a lift of −3 points.")
    assert lift_line(None) == ""


def test_headline_is_a_plain_sentence() -> None:
    report = sample.quickstart()
    assert headline(report) == (
        "SDFT learned 92% of the new facts and moved the model 0.12 nats per token from where it was; "
        "SFT learned 98% and moved it 0.53; SFT + articles learned 96% and moved it 0.46. Before training it was 2%."
    )
    learned = copy.deepcopy(report)
    learned["kind"] = "learn"
    assert headline(learned).startswith("SDFT answers 92% of the questions it was taught right and moved the model")
    evaluated = copy.deepcopy(report)
    evaluated.update(kind="evaluate", runs=[report["runs"][3]])
    assert headline(evaluated) == "SDFT answers 44 of 48 direct questions right (92%)."
    evaluated["runs"] = [{**report["runs"][3], "accuracy": {}}]
    assert headline(evaluated) == ""


def test_change_is_beyond_noise_only_when_the_interval_says_so() -> None:
    assert not change(sample.share(20, 40), sample.share(25, 40)).beyond_noise
    fallen = change(sample.share(8, 40), sample.share(30, 40))
    assert fallen.beyond_noise and fallen.high < 0 and fallen.points == pytest.approx(-55)
    assert change(sample.share(48, 48), sample.share(1, 48)).low > 0


@pytest.mark.parametrize(
    ("value", "words"), [(0, "0%"), (0.001, "<1%"), (0.125, "12%"), (0.9999, ">99%"), (1, "100%"), (0.854, "85%")]
)
def test_percent(value: float, words: str) -> None:
    assert percent(value) == words


def test_other_numbers() -> None:
    assert [signed(value) for value in (3.2, -12, 0.2, -0.4)] == ["+3", "−12", "±0", "±0"]
    assert [nats(value) for value in (0, 0.051, 0.124)] == ["0.00", "0.051", "0.12"]
    assert [duration(value) for value in (0.44, 48, 312.5, 7500)] == ["0.4 s", "48 s", "5 min 12 s", "2 h 5 min"]


def test_of_documents_the_taught_questions_stand_for_what_was_taught() -> None:
    share = {"correct": 1, "total": 2, "value": 0.5, "low": 0.1, "high": 0.9}
    run = {"name": "sdft", "label": "SDFT", "method": "sdft", "accuracy": {"direct": share, "taught": share}}
    report = {"kind": "learn", "runs": [run], "data": {"groups": {"direct": 2, "taught": 2}}}
    assert main_group(report) == "taught"
    assert main_group({**report, "runs": [{**run, "accuracy": {"direct": share}}]}) == "direct"


def test_strict_and_lenient_stand_beside_each_other() -> None:
    run = {"name": "sdft", "label": "SDFT", "accuracy": {"taught": {"value": 1.0}}}
    report = {"runs": [run], "data": {}, "knowledge": {"sdft": {"taught": {"strict": 0.25, "lenient": 0.5}}}}
    console = Console(width=80)
    with console.capture() as shown:
        console.print(knowledge_table(report, 80))
    assert "25% / 50%" in shown.get()


@pytest.mark.parametrize(("width", "others"), [(80, 3), (44, 1), (20, 0)])
def test_where_room_is_short_the_taught_questions_stay(width: int, others: int) -> None:
    groups = ("taught", "reworded", "telling", "neighbour")
    grades = {group: {"strict": 0.25, "lenient": 0.5} for group in groups} | {
        "telling": {"strict": None, "lenient": None}
    }
    run = {"name": "sdft", "label": "SDFT", "accuracy": {group: {"value": 1.0} for group in groups}}
    console = Console(width=120)
    with console.capture() as shown:
        console.print(knowledge_table({"runs": [run], "data": {}, "knowledge": {"sdft": grades}}, width))
    found = shown.get()
    assert [group in found for group in groups] == [True] + [True] * others + [False] * (3 - others)
    assert ("not scored" in found) is (others > 1)
