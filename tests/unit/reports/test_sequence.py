from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sequence_sample
from pages import Page, check_drawings, check_ids, check_loads_nothing
from rich.console import Console

from selftaught.errors import ArtifactError
from selftaught.reports import compose_sequence, render_sequence, sequence_headline, sequence_table, write_sequence

SECTIONS = {
    "results", "matrix-title", "stages-title", "checks-title", "examples-title", "repeat-title", "words-title",
}  # fmt: skip


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return compose_sequence(**sequence_sample.experiment())


@pytest.fixture(scope="module")
def page(report: dict[str, Any]) -> str:
    return render_sequence(report)


def suite(kind: str, rights: str, name: str) -> dict[str, Any]:
    """Answers from "110": right, right, wrong."""
    rows = [
        {"id": f"{name}{at}", "group": name, "completion": f"said {right}", "correct": right == "1"}
        for at, right in enumerate(rights)
    ]
    return {"kind": kind, "results": rows}


def tiny(first: str, second: str, probe: str, drift: float, method: str | None = None) -> dict[str, Any]:
    suites = {"a": suite("skill", first, "a"), "b": suite("skill", second, "b"), "p": suite("probe", probe, "p")}
    return {"suites": suites, "drift_nats": drift, "method": method, "seconds": 10.0, "config": None}


def small() -> dict[str, Any]:
    """Two skills of ten items; two methods, two seeds; all numbers can be worked out by hand."""
    sdft = {
        0: [tiny("1111111100", "1100000000", "1111000000", 0.1), tiny("1111111000", "1111110000", "1111000000", 0.2)],
        1: [tiny("1111110000", "1000000000", "1111000000", 0.1), tiny("1111111000", "1111111100", "1110000000", 0.4)],
    }
    sft = {
        0: [tiny("1111111110", "0000000000", "1110000000", 0.8), tiny("1110000000", "1111110000", "1000000000", 1.6)],
        1: [tiny("1111111110", "0000000000", "1110000000", 0.8), tiny("1100000000", "1111100000", "1100000000", 2.4)],
    }
    runs = {"sdft": sdft, "sft": sft}
    for method, chains in runs.items():
        for chain in chains.values():
            for record in chain:
                record["method"] = method
    return {
        "order": ["a", "b"],
        "base": tiny("1000000000", "1110000000", "1111100000", 0.0),
        "runs": runs,
        "labels": {"sdft": "SDFT", "sft": "SFT"},
        "model": {"name": "tiny"},
    }


# ---------------------------------------------------------------------------------------- numbers


def test_numbers_by_hand() -> None:
    found = compose_sequence(**small())
    sdft, sft = found["summary"]
    assert [[stage[name]["value"] for name in "ab"] for stage in sdft["matrix"]] == [[0.7, 0.15], [0.7, 0.7]]
    assert [[stage[name]["value"] for name in "ab"] for stage in sft["matrix"]] == [[0.9, 0.0], [0.25, 0.55]]
    assert [row["average"]["value"] for row in (sdft, sft)] == [0.7, 0.4]
    assert [row["backward_transfer"]["value"] for row in (sdft, sft)] == [0.0, -0.65]
    assert [row["forgetting"]["value"] for row in (sdft, sft)] == [0.0, 0.65]
    assert [row["kept"]["a"]["value"] for row in (sdft, sft)] == [1.0, pytest.approx(0.25 / 0.9)]
    assert set(sdft["kept"]) == {"a"}, "after the last stage nothing follows"
    assert [row["probes"]["p"]["forgotten"]["value"] for row in (sdft, sft)] == [0.15, 0.35]
    assert [row["drift_nats"][-1]["value"] for row in (sdft, sft)] == [pytest.approx(0.3), 2.0]
    assert [row["seconds"] for row in (sdft, sft)] == [20.0, 20.0]
    (pair,) = found["differences"]
    assert pair["methods"] == ["sdft", "sft"]
    assert pair["average"]["value"] == pytest.approx(0.3)
    assert pair["probe_ratio"]["value"] == pytest.approx(3 / 7)
    assert pair["drift_ratio"]["value"] == pytest.approx(((0.2 / 1.6) * (0.4 / 2.4)) ** 0.5), "the seeds' ratios"
    assert [check["met"] for check in found["checks"]] == [True, True, False, True]
    assert found["base"]["accuracy"]["b"]["value"] == 0.3
    assert found["base"]["average"]["value"] == 0.2


def test_forgetting_is_taken_seed_by_seed() -> None:
    """The mean of maxima, not the maximum of means: each seed's best counts."""
    arguments = small()
    arguments["order"] = ["a", "b", "c"]
    highs = {0: ("11110", "11000", "10000"), 1: ("11000", "11110", "10000")}

    def record(rights: str) -> dict[str, Any]:
        return {"suites": {name: suite("skill", rights, name) for name in "abc"}, "drift_nats": None, "method": "sdft"}

    arguments["base"] = record("00000")
    arguments["runs"] = {"sdft": {seed: [record(rights) for rights in path] for seed, path in highs.items()}}
    (sdft,) = compose_sequence(**arguments)["summary"]
    first, second = 0.8 - 0.2, (0.4 + 0.8) / 2 - 0.2
    assert sdft["forgetting"]["value"] == pytest.approx((first + second) / 2)
    assert sdft["drift_nats"] is None


def test_numbers_are_whole_finite_and_repeatable(report: dict[str, Any]) -> None:
    again = compose_sequence(**sequence_sample.experiment())
    assert {**again, "created": ""} == {**report, "created": ""}
    json.dumps(report, allow_nan=False)
    assert report["title"] == "One model, three skills"
    assert report["suites"]["tools"] == {"kind": "skill", "items": 60, "clusters": 60}
    assert report["intervals"] == {"draws": 4000, "seed": 0, "resampled": ["seeds", "items"]}
    assert [(run["method"], run["seed"], len(run["stages"])) for run in report["runs"]] == [
        (method, seed, 3) for method in ("sdft", "sft") for seed in (0, 1, 2)
    ]
    stage = report["runs"][0]["stages"][1]
    assert stage["skill"] == "medical" and stage["config"]["method"] == "sdft"
    assert set(stage["groups"]["tools"]) == {"simple", "multiple", "live"}
    assert "medical" not in stage["groups"], "one group is the suite itself"
    for estimate in (row["average"] for row in report["summary"]):
        assert estimate["low"] < estimate["value"] < estimate["high"]


def test_differences_are_paired() -> None:
    """A method that is one point better at every item's draw is surely better, however unsure both averages are."""
    arguments = sequence_sample.experiment(seeds=(0, 1), total=100)
    rows = arguments["runs"]["sft"]
    for seed, chain in rows.items():
        chain[-1]["suites"] = json.loads(json.dumps(arguments["runs"]["sdft"][seed][-1]["suites"]))
        for at in range(0, 100, 10):
            chain[-1]["suites"]["tools"]["results"][at]["correct"] = False
            arguments["runs"]["sdft"][seed][-1]["suites"]["tools"]["results"][at]["correct"] = True
    found = compose_sequence(**arguments)
    (pair,), sdft = found["differences"], found["summary"][0]
    assert pair["average"]["value"] == pytest.approx(0.1 / 3)
    width = pair["average"]["high"] - pair["average"]["low"]
    assert pair["average"]["low"] > 0 and width < 0.6 * (sdft["average"]["high"] - sdft["average"]["low"])


def test_one_seed_says_so() -> None:
    found = compose_sequence(**sequence_sample.experiment(seeds=(3,)))
    assert found["intervals"]["resampled"] == ["items"]
    assert found["summary"][0]["drift_nats"][0]["low"] is None
    assert found["differences"][0]["drift_ratio"]["low"] is None
    text = render_sequence(found)
    Page(text)
    assert "Only one seed was run" in text and "say nothing of what another seed would give" in text
    sequence_table(found, 80)


def test_without_probes_and_drift() -> None:
    arguments = sequence_sample.experiment(probes=False)
    for chains in arguments["runs"].values():
        for chain in chains.values():
            for record in chain:
                record["drift_nats"] = None
    found = compose_sequence(**arguments)
    assert found["summary"][0]["probe_mean"] is None and found["summary"][0]["probes"] == {}
    assert found["differences"][0]["probe_ratio"] is None and found["differences"][0]["drift_ratio"] is None
    assert len(found["checks"]) == 2
    text = render_sequence(found)
    assert Page(text).tags["svg"] == 3
    assert "Kept of the base" not in text.split("<main>")[1].split("matrix-title")[0].split("<p class")[0]
    table = shown(found, 200)
    assert "probes" not in table and "drift" not in table


def test_a_ratio_to_nothing_is_said_not_divided() -> None:
    arguments = small()
    for chain in arguments["runs"]["sft"].values():
        chain[-1]["suites"]["p"] = suite("probe", "1111100000", "p")
    found = compose_sequence(**arguments)
    assert found["differences"][0]["probe_ratio"] is None
    check = next(check for check in found["checks"] if "probes" in check["name"])
    assert check["value"] == "SFT lost nothing (0.0 points), SDFT 15.0" and not check["met"]
    Page(render_sequence(found))


def test_clusters_widen_intervals() -> None:
    arguments = sequence_sample.experiment()
    lone = compose_sequence(**arguments)
    clusters = {f"facts-{at}": f"fact {at // 6}" for at in range(120)}
    grouped = compose_sequence(**arguments, clusters=clusters)
    assert grouped["suites"]["facts"] == {"kind": "probe", "items": 120, "clusters": 20}
    assert grouped["base"]["accuracy"]["facts"]["value"] == lone["base"]["accuracy"]["facts"]["value"]
    assert "are sampled together" in render_sequence(grouped)
    assert "are sampled together" not in render_sequence(lone)


def test_one_method_and_one_skill_are_enough() -> None:
    arguments = small()
    arguments["order"] = ["a"]
    arguments["runs"] = {"sft": {0: arguments["runs"]["sft"][0][:1]}}
    found = compose_sequence(**arguments)
    assert found["title"] == "One model, one skill"
    assert found["checks"] == found["differences"] == []
    assert found["summary"][0]["forgetting"] is None and found["summary"][0]["kept"] == {}
    words = sequence_headline(found).replace("\u00a0", " ")
    assert words == "After its one stage SFT answers 90% right, the base 10%."
    ids = set(Page(render_sequence(found)).ids)
    assert "checks-title" not in ids and "results" in ids
    shown(found, 80)


@pytest.mark.parametrize(
    ("break_", "message"),
    [
        (lambda e: e["runs"]["sft"][0].pop(), "sft with seed 0 has 1 stages instead of 2"),
        (lambda e: e["runs"]["sft"][1][0]["suites"].pop("p"), "sft with seed 1, stage 1 and the base differ .*: p"),
        (
            lambda e: e["runs"]["sdft"][0][1]["suites"]["b"]["results"].reverse(),
            "sdft with seed 0, stage 2 was asked other items of 'b' .*: item 1 is 'b9' instead of 'b0'",
        ),
        (lambda e: e["runs"]["sdft"][0][1]["suites"]["b"]["results"].pop(), "item 10 is 'nothing' instead of 'b9'"),
        (lambda e: e["order"].append("z"), "the base was not asked the skill 'z'"),
        (lambda e: e["runs"]["sft"].clear(), "a seed of each method"),
        (lambda e: e["base"]["suites"]["p"]["results"].clear(), "the suite 'p' has no items"),
    ],
)
def test_records_that_do_not_match_are_refused(break_: Any, message: str) -> None:
    arguments = small()
    break_(arguments)
    with pytest.raises(ValueError, match=message):
        compose_sequence(**arguments)


# ------------------------------------------------------------------------------------------ words


def shown(report: dict[str, Any], width: int) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(sequence_table(report, width))
    return capture.get()


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_terminal_table_fits_without_wrapping(report: dict[str, Any], width: int) -> None:
    lines = shown(report, width).rstrip().splitlines()
    assert max(map(len, lines)) <= width
    rows = [line for line in lines if line.strip() and "─" not in line]
    assert [row.split()[0] for row in rows] == ["method", "base", "SDFT", "SFT"]
    assert "average" in rows[0] and "drift" in rows[0]
    assert ("was" in rows[2]) == (width == 160)


def test_headline_is_a_plain_sentence() -> None:
    words = sequence_headline(compose_sequence(**small())).replace("\u00a0", " ")
    assert words == (
        "After two skills in turn SDFT answers 70% right on average, SFT 40%, the base 20%. "
        "Of the accuracy that each earlier skill had when it was just taught, SDFT kept 100%, SFT 28%."
    )


def test_examples_are_answers_that_changed() -> None:
    found = compose_sequence(**small())["examples"]
    assert {row["skill"] for row in found} == {"a", "b"}
    for row in found:
        said = row["methods"].values()
        if row["change"] == "forgotten":
            assert any(one["own"]["correct"] and not one["last"]["correct"] for one in said)
        else:
            assert not row["base"]["correct"] and any(one["last"]["correct"] for one in said)
    first = found[0]
    assert (first["id"], first["change"], first["methods"]["sft"]["seed"]) == ("a3", "forgotten", 0), "SDFT kept it"


# ------------------------------------------------------------------------------------------- page


def test_files_are_written_and_hold_the_same_numbers(report: dict[str, Any], tmp_path: Path) -> None:
    as_json, as_html = write_sequence(report, tmp_path / "new" / "folder")
    assert json.loads(as_json.read_text(encoding="utf-8")) == report
    assert as_html.read_text(encoding="utf-8") == render_sequence(report)
    assert sorted(path.name for path in as_html.parent.iterdir()) == ["report.html", "report.json"]


def test_page_is_whole_and_loads_nothing(page: str) -> None:
    parsed = Page(page)
    check_loads_nothing(page, parsed)
    check_ids(parsed)
    check_drawings(page)
    assert set(parsed.ids) >= SECTIONS and parsed.tags["h1"] == 1
    assert parsed.tags["svg"] == 5, "three skills, the probes, the drift"
    assert "script" not in parsed.tags


def test_matrix_marks_the_stage_that_taught_each_skill(page: str) -> None:
    tables = re.findall(r'<table class="matrix".*?</table>', page, flags=re.DOTALL)
    assert len(tables) == 2
    for table in tables:
        rows = re.findall(r"<tr><th scope=\"row\">.*?</tr>", table, flags=re.DOTALL)
        frames = [[' class="own"' in cell for cell in re.findall(r"<td[^>]*>", row)] for row in rows]
        assert frames == [[False] * 3, [True, False, False], [False, True, False], [False, False, True]]


def test_page_defines_its_measures_with_their_sources(page: str) -> None:
    for words in ("arXiv 1706.08840", "arXiv 1801.10112", "Owen 2007", "4000 samples", "R<sub>N,j</sub>"):
        assert words in page


def test_many_and_long_skill_names_are_numbered() -> None:
    arguments = sequence_sample.experiment(seeds=(0,), total=10)
    names = {"tools": "an uncommonly long name", "medical": "medical", "science": "science"}
    arguments["order"] = [names[name] for name in arguments["order"]]
    records = [r for chains in arguments["runs"].values() for chain in chains.values() for r in chain]
    for record in [arguments["base"], *records]:
        record["suites"] = {names.get(name, name): found for name, found in record["suites"].items()}
    assert "after stage" in render_sequence(compose_sequence(**arguments))


def test_text_from_models_and_data_is_escaped() -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & $x_$ \"'"
    arguments = small()
    arguments["labels"] = {"sdft": evil, "sft": "SFT"}
    arguments["model"]["name"] = evil
    records = [r for chains in arguments["runs"].values() for chain in chains.values() for r in chain]
    for record in [arguments["base"], *records]:
        record["suites"][evil] = record["suites"].pop("b")
        record["config"] = {evil: evil}
        for item in record["suites"]["a"]["results"]:
            item["id"], item["completion"] = item["id"] + evil, evil
    arguments["order"] = ["a", evil]
    found = compose_sequence(**arguments)
    text = render_sequence(found)
    assert "script" not in Page(text).tags and "<img" not in text
    assert evil[:20] in shown(found, 400), "labels are text, not markup"


def test_reports_that_cannot_be_shown_name_the_reason(report: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="schema 2"):
        render_sequence({**report, "schema": 2})
    with pytest.raises(ArtifactError, match="'summary'"):
        render_sequence({name: value for name, value in report.items() if name != "summary"})
    with pytest.raises(ArtifactError, match="not JSON"):
        write_sequence({**report, "seeds": [0, float("nan")]}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_sequences_need_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, json, sequence_sample, selftaught.reports as reports, pathlib\n"
        "found = reports.compose_sequence(**sequence_sample.experiment(seeds=(0,), total=10))\n"
        f"reports.write_sequence(found, pathlib.Path({str(tmp_path)!r}))\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
