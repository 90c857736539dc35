from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sample
from pages import Page, check_drawings, check_ids, check_loads_nothing

from selftaught.errors import ArtifactError
from selftaught.reports import charts, render_html, write_report

HEADINGS = {
    "results", "plane-title", "learning-title", "lift-title", "answers-title", "checks-title", "repeat-title",
    "words-title",
}  # fmt: skip


@pytest.fixture(scope="module")
def page() -> str:
    return render_html(sample.quickstart())


def test_files_are_written_and_hold_the_same_numbers(tmp_path: Path) -> None:
    report = sample.quickstart()
    as_json, as_html = write_report(report, tmp_path / "new" / "folder")
    assert json.loads(as_json.read_text(encoding="utf-8")) == report
    assert as_html.read_text(encoding="utf-8") == render_html(report), "one report, one page"
    assert sorted(path.name for path in as_html.parent.iterdir()) == ["report.html", "report.json"]


def test_page_is_whole_and_loads_nothing(page: str) -> None:
    parsed = Page(page)
    check_loads_nothing(page, parsed)
    assert set(parsed.ids) >= HEADINGS
    assert parsed.tags["h1"] == 1


def test_ids_do_not_collide_between_charts(page: str) -> None:
    parsed = Page(page)
    check_ids(parsed)
    assert parsed.tags["svg"] == 6, "two learning charts, the plane, three losses"


def test_charts_take_the_colours_and_fonts_of_the_page(page: str) -> None:
    check_drawings(page)
    assert "SDFT ends at 92% and 0.12 nats per token" in page


def test_model_text_is_escaped() -> None:
    report = sample.quickstart()
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & $x_$ \"'"
    report["title"] = report["data"]["name"] = report["model"]["name"] = evil
    report["answers"][0].update(question=evil, expected=evil, group=evil)
    report["answers"][0]["answers"]["sdft"]["text"] = evil
    report["runs"][3].update(label=evil, model_dir=evil, config={evil: evil})
    report["runs"][2]["accuracy"][evil] = report["runs"][2]["accuracy"]["direct"]
    report["runs"][2]["curve"][0]["accuracy"][evil] = 0.5
    report["comparisons"][0]["statement"] = report["checks"][0]["name"] = report["lift"]["warning"] = evil
    text = render_html(report)
    assert Page(text).tags["script"] == 1, "only ours"
    assert "<img" not in text and "alert(1)</script>" not in text
    assert "&lt;img src=x onerror=alert(2)&gt;" in text


def test_answers_show_right_and_wrong_by_symbol_and_wait_in_a_fold(page: str) -> None:
    total = sum(sample.GROUPS.values())
    parsed = Page(page)
    assert parsed.tags["article"] == total
    shown, rest = page.split('id="rest"')
    assert len(re.findall("<article", shown)) == 40
    assert f"{total - 40} more" in rest
    assert {group: shown.count(f'data-group="{group}"') for group in sample.GROUPS} == {
        "direct": 14, "paraphrase": 14, "indirect": 12,
    }  # fmt: skip
    assert page.count("✓") > 100 and page.count("✗") > 100
    assert '<form class="filters" id="filters" hidden>' in page, "filters need the script, the page does not"


def test_changes_are_coloured_only_beyond_noise(page: str) -> None:
    assert re.findall(r'<small class="(?:up|down)">([^<]*)', page) == ["▼ −32", "▼ −25"]
    assert "<small>−18</small>" in page


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({"lift": None}, {"lift-title"}),
        ({"answers": []}, {"answers-title", "filters"}),
        ({"checks": []}, {"checks-title"}),
        ({"comparisons": []}, set()),
        ({"machine": {}, "data": {}}, set()),
    ],
)
def test_missing_parts_leave_their_section_out(change: dict[str, Any], missing: set[str]) -> None:
    ids = set(Page(render_html({**sample.quickstart(), **change})).ids)
    assert HEADINGS - missing <= ids
    assert not missing & ids


def test_evaluation_of_one_run_with_one_group_and_nothing_else() -> None:
    report = sample.quickstart()
    run = report["runs"][0]
    run.update(name="model", label="SmolLM2", accuracy={"hard_ones": sample.share(3, 9)}, probes={}, drift_nats=None)
    report.update(kind="evaluate", runs=[run], lift=None, answers=[], comparisons=[], checks=[], data={"name": "mine"})
    text = render_html(report)
    parsed = Page(text)
    assert HEADINGS & set(parsed.ids) == {"results", "repeat-title", "words-title"}
    assert parsed.tags["svg"] == 0 and parsed.tags["script"] == 0
    assert "Hard ones" in text and "SmolLM2 answers 3 of 9" in text
    assert "Kept" not in text.split("<table")[1].split("</table")[0]


def test_learning_run_without_curves_keeps_the_plane() -> None:
    report = sample.quickstart()
    report.update(kind="learn", runs=[report["runs"][0], report["runs"][3]])
    report["runs"][1].update(curve=[], loss=[])
    ids = set(Page(render_html(report)).ids)
    assert "plane-title" in ids and "learning-title" not in ids
    report["runs"][1]["drift_nats"] = None
    assert "plane-title" not in Page(render_html(report)).ids


def test_curves_without_times_are_drawn_over_steps() -> None:
    report = sample.quickstart()
    for point in report["runs"][1]["curve"]:
        point["seconds"] = None
    assert "optimiser steps" in (charts.learning_chart(report, "direct", "x") or "")


def test_curve_starts_at_the_base_and_ends_at_the_final_evaluation() -> None:
    report = sample.quickstart()
    run = report["runs"][3]
    points = charts.curve_points(report, run, "direct")
    assert [point.step for point in points] == [0, 15, 30, 45, 60, 75, 90]
    assert (points[0].accuracy, points[0].drift) == (report["runs"][0]["accuracy"]["direct"]["value"], 0.0)
    assert (points[-1].accuracy, points[-1].drift) == (run["accuracy"]["direct"]["value"], 0.124)


def test_every_run_has_its_own_look() -> None:
    runs = [{"name": name, "method": "sft"} for name in ("sft", "sft-1", "sft-2", "sft_documents", "sft-3")]
    styles = charts.run_styles([{"name": "base"}, *runs, {"name": "sdft", "method": "sdft"}])
    assert len({style.light for style in styles.values()}) == len(styles)
    assert styles["sft_documents"].light == charts.FAMILIES["sft_documents"][0]


def test_reports_that_cannot_be_shown_name_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="schema 2"):
        render_html({**sample.quickstart(), "schema": 2})
    report = sample.quickstart()
    del report["title"]
    with pytest.raises(ArtifactError, match="'title'"):
        render_html(report)
    report = sample.quickstart()
    report["comparisons"][0]["values"]["sdft"] = float("nan")
    with pytest.raises(ArtifactError, match="not JSON"):
        write_report(report, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_reports_need_no_torch_and_import_nothing_heavy() -> None:
    code = (
        "import sys, selftaught.reports\n"
        "heavy = {'torch', 'matplotlib', 'jinja2', 'rich', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_of_documents_it_says_what_was_not_scored_judged_and_shown_in_part() -> None:
    report = sample.quickstart()
    grades = {
        "direct": {"strict": 0.5, "lenient": 0.75},
        "indirect": {"strict": None, "lenient": None, "not_scored": 7},
    }
    agreement = {"n": 40, "share": 0.9, "kappa": 0.61}
    report |= {
        "knowledge": {run["name"]: grades for run in report["runs"]},
        "judge": {
            "name": "http://h/v1#m",
            "answers": 60,
            "unreadable": 0,
            "agreement": {"strict": agreement, "lenient": agreement},
        },
        "documents": [{"path": "a.txt", "status": "read", "note": "", "num_words": 9, "num_pieces": 1}],
        "contexts": [{"id": "own", "shown": 2, "pieces": 5}],
    }
    page = render_html(report)
    assert page.count("not scored") == 2 * len(report["runs"])
    for said in ("http://h/v1#m judged 60 answers", "90% strict (kappa 0.61)", "own (2 of 5)", "28 indirect"):
        assert said in page
