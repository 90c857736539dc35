"""The paper's skills, from small files in the forms in which they are published."""

from __future__ import annotations

import json
import random
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import datasets
import pytest

from selftaught.data import load_examples, paper
from selftaught.data.paper import load_paper
from selftaught.errors import ConfigError, DataError
from selftaught.evaluation.scorers import check_scorers, score
from selftaught.types import Example

TURNS = [{"role": "system", "content": "Choose."}, {"role": "user", "content": "Which?\n\nA: tin\nB: lead"}]
SCIENCE_TRAIN = {"messages": TURNS, "output_text": "<reasoning>\nB, so B\n</reasoning>\n<answer>\nB\n</answer>"}
SCIENCE_TEST = {"prompt": [TURNS[0], {"role": "user", "content": "What?\n\nA: gold\nB: iron"}], "answer": "A"}
CALLS = [{"Action": "find", "Action_Input": '{"city": "Oslo"}'}, {"Action": "book", "Action_Input": "{}"}]
TOOLS_TRAIN = {
    "prompt": "Tools: find, book.\nQuestion: a room in Oslo?",
    "golden_answer": CALLS,
    "golden_response": [
        'Thought: find it\nAction: find\nAction Input: {"city": "Oslo"}',
        "Thought: take it\nAction: book\nAction Input: {}",
    ],
}
TOOLS_TEST = {"prompt": "Tools: find, book.\nQuestion: a room in Rome?", "golden_answer": CALLS[1:]}
API = {"Name": "Rooms", "Description": "Finds rooms {now}", "NLDocumentation": "find: finds.\nbook: books.\n"}
ALPACA_TRAIN = {
    **API,
    "Instructions": ["A room?"],
    "Instances": [
        {
            "input": "A room in Oslo?\nHint: you may ask",
            "output": "Done.",
            "intermediate_steps": [
                [["getDetails", "{}", " ask first\nASSISTANT Action: getDetails"], "Oslo"],
                [["find", '{"city": "Oslo"}', ' look\nASSISTANT Action: find\nAction Input: {"city": "Oslo"}'], "[1]"],
                [["book", '{"id": 1}', 'Thought: take it\nAction: book\nAction Input: {"id": 1}'], "ok"],
            ],
        },
        {"input": "No call?", "output": "No.", "intermediate_steps": []},
    ],
}
ALPACA_TEST = {**API, "Instructions": ["One?", "Two?"], "Golden_Answers": [CALLS[:1], CALLS]}
MEDICAL_TRAIN = {"Question": "What lowers fever?", "Complex_CoT": "Long.", "Response": "Paracetamol does."}


def problem(question: str, answer: str) -> dict[str, str]:
    return {"Open-ended Verifiable Question": question, "Ground-True Answer": answer}


def sciknoweval(number: int, **changed: Any) -> dict[str, Any]:
    row = {
        "prompt": {"default": "Choose."},
        "question": f"Which is element {number}?",
        "choices": {"text": [f"it {number}", "tin", "lead", "gold"], "label": ["A", "B", "C", "D"]},
        "answerKey": "A",
        "type": "mcq-4-choices",
        "domain": "Chemistry",
        "details": {"level": "L3", "task": "t", "subtask": "s"},
    }
    return {**row, **changed}


def write(path: Path, *rows: Any) -> Path:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(lines if path.suffix == ".jsonl" else json.dumps(rows), encoding="utf-8")
    return path


def by_split(examples: list[Example]) -> dict[str, list[Example]]:
    return {split: [row for row in examples if row.split == split] for split in ("train", "validation", "test")}


# ------------------------------------------------------------------------------------------ the forms


def test_science_as_the_authors_released_it(tmp_path: Path) -> None:
    examples = load_paper("science", write(tmp_path / "rows.jsonl", SCIENCE_TRAIN, SCIENCE_TEST))
    taught, test = examples
    assert [message.role for message in taught.prompt] == ["system", "user"]
    assert (taught.demonstration, taught.split, taught.group) == (SCIENCE_TRAIN["output_text"], "train", "taught")
    assert (test.demonstration, test.answers, test.split, test.group) == (None, ("A",), "test", "test")
    check_scorers(examples)
    assert score("<answer>B</answer>", taught)
    assert score("<reasoning>It is not B.</reasoning>\n<answer>\nA\n</answer>", test)
    assert not score("<answer>B</answer>", test)


def test_sciknoweval_keeps_chemistry_of_level_three_and_splits_by_hash(tmp_path: Path) -> None:
    others = [
        sciknoweval(1, domain="Biology"),
        sciknoweval(2, details={"level": "L2"}),
        sciknoweval(3, answerKey="", choices={"text": [], "label": []}, type="open-ended-qa"),
        sciknoweval(4, answerKey=None, choices=None, type="filling"),
    ]
    rows = [*map(sciknoweval, range(1000)), *others]
    examples = load_paper("science", write(tmp_path / "a.json", *rows))
    assert len(examples) == 1000
    parts = by_split(examples)
    assert 700 < len(parts["train"]) < 800
    assert 25 < len(parts["validation"]) < 80
    assert 160 < len(parts["test"]) < 240
    first = examples[0]
    assert first.question == "Which is element 0?\n\nA: it 0\nB: tin\nC: lead\nD: gold"
    assert first.prompt[0].role == "system"
    assert "<answer>" in first.prompt[0].content
    assert all(score(str(row.demonstration), row) for row in examples)

    random.Random(0).shuffle(rows)
    again = load_paper("science", write(tmp_path / "b.jsonl", *rows))
    assert {(row.id, row.split) for row in again} == {(row.id, row.split) for row in examples}


def test_tools_as_the_authors_released_them(tmp_path: Path) -> None:
    taught, test = load_paper("tools", write(tmp_path / "rows.json", TOOLS_TRAIN, TOOLS_TEST))
    assert taught.demonstration == "\n".join(TOOLS_TRAIN["golden_response"])
    assert (taught.split, test.split, test.demonstration) == ("train", "test", None)
    assert score(str(taught.demonstration), taught)
    assert not score(str(taught.demonstration), test)
    assert score("Action: book\nAction Input: {}", test)


def test_toolalpaca_as_published(tmp_path: Path) -> None:
    bare = {**API, "Function_Description": {}}  # an interface without instances
    examples = load_paper("tools", write(tmp_path / "rows.json", ALPACA_TRAIN, ALPACA_TEST, bare))
    taught, one, two = examples
    assert taught.question.endswith("Question: A room in Oslo?")
    assert "Rooms: Finds rooms {now}\nfind: finds.\nbook: books." in taught.question
    assert taught.demonstration == (
        'Thought: look\nAction: find\nAction Input: {"city": "Oslo"}\n'
        'Thought: take it\nAction: book\nAction Input: {"id": 1}'
    )
    assert score(taught.demonstration, taught)
    assert (one.split, two.split) == ("test", "test")
    assert json.loads(two.answers[0]) == CALLS


def test_medical_tests_are_a_thousand_that_are_not_taught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper, "MEDICAL_TESTS", 5)
    problems = [problem(f"Case {number}?", f"Drug {number}") for number in range(20)]
    known = problem("what  lowers FEVER?", "Paracetamol")
    source = write(tmp_path / "rows.json", known, *problems, problem(" ", "x"), MEDICAL_TRAIN)
    parts = by_split(load_paper("medical", source))
    assert [row.demonstration for row in parts["train"]] == ["Paracetamol does."]
    assert len(parts["test"]) == 5
    assert all(row.question.startswith("Case") for row in parts["test"])
    again = load_paper("medical", write(tmp_path / "b.json", MEDICAL_TRAIN, *reversed(problems)))
    assert {row.id for row in by_split(again)["test"]} == {row.id for row in parts["test"]}


def test_medical_rows_ask_for_a_judge_before_anything_slow_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = load_paper("medical", write(tmp_path / "rows.json", MEDICAL_TRAIN, problem("Case?", "Drug")))
    monkeypatch.delenv("SELFTAUGHT_JUDGE_URL", raising=False)
    with pytest.raises(ConfigError, match="SELFTAUGHT_JUDGE_URL"):
        check_scorers(examples)
    monkeypatch.setenv("SELFTAUGHT_JUDGE_URL", "http://localhost:1/v1")
    monkeypatch.setenv("SELFTAUGHT_JUDGE_MODEL", "some")
    check_scorers(examples)


def test_doubled_rows_come_once_and_test_questions_are_not_taught(tmp_path: Path) -> None:
    leak = {**TOOLS_TRAIN, "prompt": TOOLS_TEST["prompt"]}
    examples = load_paper("tools", write(tmp_path / "rows.json", TOOLS_TRAIN, leak, TOOLS_TRAIN, TOOLS_TEST))
    assert [row.split for row in examples] == ["train", "test"]
    assert "Oslo" in examples[0].question
    assert len({row.id for row in examples}) == 2


# ---------------------------------------------------------------------------------------- the sources


def test_a_folder_of_files_and_of_saved_data_sets(tmp_path: Path) -> None:
    datasets.Dataset.from_list([TOOLS_TRAIN]).save_to_disk(tmp_path / "train_data")
    write(tmp_path / "eval_simulated.json", ALPACA_TEST)
    write(tmp_path / "public_apis.json", {"not": "ours"})
    (tmp_path / "train.txt").write_text("nor this")
    examples = load_paper("tools", tmp_path)
    assert [row.split for row in examples] == ["test", "test", "train"]
    assert load_paper("tools", tmp_path / "train_data")[0] == examples[2]


def test_named_as_data_of_any_command(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", SCIENCE_TRAIN, SCIENCE_TEST)
    assert load_examples(f"paper:science={path}") == load_paper("science", path)


def test_what_is_published_is_asked_of_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(name: str, configuration: str | None) -> Any:
        asked.append((name, configuration))
        row = MEDICAL_TRAIN if "SFT" in name else problem("Case?", "Drug")
        return datasets.DatasetDict({"train": datasets.Dataset.from_list([row])})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert len(load_examples("paper:medical")) == 2
    assert asked == [
        ("FreedomIntelligence/medical-o1-reasoning-SFT", "en"),
        ("FreedomIntelligence/medical-o1-verifiable-problem", None),
    ]
    with pytest.raises(DataError, match="no form of this data set"):
        load_paper("science", "hicai-zju/SciKnowEval:Chemistry")
    assert asked[-1] == ("hicai-zju/SciKnowEval", "Chemistry")


def test_the_release_is_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = tmp_path / "saved"
    rows = {"train": TOOLS_TRAIN, "eval": TOOLS_TEST}
    for name, row in rows.items():
        datasets.Dataset.from_list([row]).save_to_disk(saved / name)
    asked = []

    def urlopen(url: str, timeout: float) -> Any:
        asked.append(url)
        (shard,) = (saved / ("train" if "train_data" in url else "eval")).glob("*.arrow")
        return shard.open("rb")

    monkeypatch.setenv("SELFTAUGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    assert [row.split for row in load_paper("tools")] == ["train", "test"]
    assert load_paper("tools") == load_paper("tools")
    assert len(asked) == 2

    def offline(url: str, timeout: float) -> Any:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    with pytest.raises(DataError, match=r"science_data/train_data.*no network.*name files that you have"):
        load_paper("science")


# ------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("science", {"question": "?", "answer": "B"}, "line 1: has the columns question, answer"),
        ("science", {"answerKey": "A"}, "line 1: not in the form of this data set .KeyError"),
        ("science", {**SCIENCE_TRAIN, "messages": TURNS[:1]}, "line 1: messages: the prompt|line 1: messages: turn"),
        ("tools", {"prompt": "?", "golden_answer": [{"Action": "x"}]}, "line 1: not in the form"),
        ("tools", {"prompt": 3, "golden_answer": CALLS}, "line 1: prompt is a number"),
        ("medical", {"Question": "?"}, "line 1: has the columns Question"),
        ("medical", {"Question": "?", "Response": " "}, "line 1: has no answer to learn from"),
        ("medical", [1], "line 1: is not an object"),
    ],
)
def test_a_row_in_no_form_is_named(tmp_path: Path, name: Any, row: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_paper(name, write(tmp_path / "rows.jsonl", row))
    assert "\n" not in str(caught.value)


def test_a_source_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("x")
    (tmp_path / "broken.jsonl").write_text("{")
    for source, message in [
        (tmp_path, "holds no data that begins with"),
        (tmp_path / "x.txt", "not a format we read"),
        (tmp_path / "none.jsonl", "no such file or folder"),
        (tmp_path / "broken.jsonl", "not valid JSON"),
    ]:
        with pytest.raises(DataError, match=message):
            load_paper("tools", source)
    with pytest.raises(DataError, match="holds no rows of this skill"):
        load_paper("science", write(tmp_path / "rows.jsonl", sciknoweval(1, domain="Physics")))


@pytest.mark.parametrize("text", ["paper:", "paper:maths", "paper:maths=x.json"])
def test_a_name_that_is_no_skill(text: str) -> None:
    with pytest.raises(DataError, match="use one of paper:science, paper:tools, paper:medical"):
        load_examples(text)


def test_a_source_left_out_after_the_equals_sign() -> None:
    with pytest.raises(DataError, match="names no source"):
        load_examples("paper:tools=")
