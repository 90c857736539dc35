"""Skills: fixed by hash from the moment they are registered, and what could not be taught or read is refused."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import made_up
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import make

from selftaught.continual import registry
from selftaught.continual.registry import add_skill, load_skill, split_rows
from selftaught.continual.workspace import Workspace
from selftaught.data import data_hash, load_examples
from selftaught.data.rows import from_json_lines, to_json_lines
from selftaught.errors import ConfigError, DataError
from selftaught.evaluation import probes
from selftaught.types import SCORER_NAMES, Example, Message, Scorer

CHECK_APART = registry._check_apart  # before made-up lessons replace it
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)
BARE = TEXTS.map(str.strip).filter(bool)
NUMBERS = st.one_of(st.integers(-(2**40), 2**40), st.floats(allow_nan=False, allow_infinity=False))
PARAMS = st.dictionaries(
    TEXTS, st.one_of(TEXTS, NUMBERS, st.booleans(), st.lists(st.one_of(TEXTS, NUMBERS))), max_size=3
)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Message, ...]:
    """A system turn or none, and one or several exchanges; the user has the last word."""
    turns = [Message("system", draw(TEXTS))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 2))):
        turns += [Message("user", draw(TEXTS)), Message("assistant", draw(TEXTS))]
    return (*turns, Message("user", draw(TEXTS)))


EXAMPLES = st.builds(
    Example,
    id=BARE,
    prompt=conversations(),
    demonstration=TEXTS,
    context=st.none() | TEXTS,
    answers=st.lists(TEXTS, max_size=3).map(tuple),
    scorer=st.none() | st.builds(Scorer, st.sampled_from(SCORER_NAMES), PARAMS),
    group=BARE,
    split=st.sampled_from(["train", "validation", "test"]),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(EXAMPLES, max_size=4))
def test_rows_go_round_unchanged(rows: list[Example]) -> None:
    found = from_json_lines(to_json_lines(rows))
    assert data_hash(found) == data_hash(rows)
    assert [dataclasses.replace(row, scorer=None) for row in found] == [
        dataclasses.replace(row, scorer=None) for row in rows
    ]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.builds(Example, BARE, conversations(), TEXTS), min_size=1, unique_by=lambda row: row.id))
def test_a_split_depends_on_the_prompt_alone(rows: list[Example]) -> None:
    splits = {row.id: row.split for row in split_rows(rows)}
    assert {row.id: row.split for row in split_rows(rows[::-1])} == splits
    for row in rows:
        other = dataclasses.replace(row, id="other", demonstration="other", group="other")
        assert [one.split for one in split_rows([other])] == [splits[row.id]]


def test_splits_are_of_about_seven_one_and_two_tenths() -> None:
    rows = [Example(str(n), (Message("user", f"Question {n}?"),), "Yes.") for n in range(2000)]
    counts = {split: sum(row.split == split for row in split_rows(rows)) for split in ("train", "validation", "test")}
    assert counts == pytest.approx({"train": 1400, "validation": 200, "test": 400}, abs=60)


def test_splits_that_are_given_are_kept() -> None:
    rows = [dataclasses.replace(row, split="validation") if n % 3 else row for n, row in enumerate(made_up.rows("a"))]
    assert split_rows(rows) == rows
    asked = Example("asked", (Message("user", "No answer is known?"),), split="validation")
    taught = [Example(str(n), (Message("user", f"{n}?"),), "Yes.") for n in range(50)]
    found = split_rows([*taught, asked])
    assert [row.id for row in found] == [str(n) for n in range(50)] + ["asked"]
    assert found[-1] == asked, "it cannot be taught"


# ------------------------------------------------------------------------------------------ registering


@pytest.fixture(autouse=True)
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    made_up.install(monkeypatch.setattr)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    make(folder / "work").ledger.close()
    return folder


@pytest.fixture
def workspace(template: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    return Workspace(tmp_path / "work")


def test_a_skill_is_what_its_file_said(workspace: Workspace, tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"question": "Wo?", "answer": "Köln.", "context": "Köln\r\nliegt\u2028dort.", "id": 7, "system": "Knapp!"},
        {"messages": [{"role": ("user", "assistant")[n % 2], "content": f"turn {n}"} for n in range(4)]},
        {"prompt": "2 + 2?", "completion": 4, "scorer": {"name": "number", "params": {"tolerance": 1.0}}},
        {"prompt": "Which?", "answers": ["A", "B"], "scorer": "choice", "group": "letters", "split": "test"},
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    examples, source, card = load_skill("mine", path)
    skill = add_skill(workspace, "mine", examples, source, card)
    assert skill == Workspace(workspace.root).ledger.skill("mine")
    assert (skill.source, skill.data_hash) == (str(path), data_hash(load_examples(path)))
    assert data_hash(workspace.rows(skill)) == skill.data_hash
    assert workspace.rows(skill)[0].context == "Köln\r\nliegt\u2028dort."
    assert skill.card["counts"] == {"train": {"direct": 3}, "test": {"letters": 1}}

    path.unlink()
    assert len(workspace.rows(skill)) == 4, "the workspace has its own copy"


def row(name: str, question: str, **more: Any) -> Example:
    return Example(name, (Message("user", question),), more.pop("demonstration", "Yes."), **more)


TAUGHT, ASKED = row("taught", "Where is Ola?"), row("asked", "Where is Bex?", split="test")
REFUSED: dict[str, tuple[list[Example], str]] = {
    "nothing to ask": ([TAUGHT], "has no row of split 'test'; add more rows, or give them a split column"),
    "nothing to teach": ([ASKED], "has no row of split 'train'"),
    "nothing": ([], "has no row of split 'train'"),
    "taught and asked": (
        [row("exam", "Where is Ola?", split="test"), TAUGHT, ASKED],
        "row 'exam' of split 'test' asks what row 'taught' teaches; remove one of the two",
    ),
    "taught and validated": (
        [TAUGHT, ASKED, row("quiz", "Where is Ola?", split="validation")],
        "row 'quiz' of split 'validation' asks what row 'taught' teaches",
    ),
    "validated and asked": (
        [TAUGHT, ASKED, row("quiz", "Where is Bex?", split="validation")],
        "row 'quiz' of split 'validation' asks what row 'asked' asks too",
    ),
    "an id twice": ([TAUGHT, ASKED, row("asked", "Where is Cid?", split="test")], "two rows have the same id"),
    "no demonstration": (
        [row("t", "Why?", demonstration=None, answers=("Because.",)), ASKED],
        "row 't' has no answer to learn from",
    ),
    "a blank context": ([row("t", "Why?", context=" "), ASKED], "row 't' would not be read as it is"),
    "a surrogate": ([row("t", "Why\ud800?"), ASKED], "row 't' "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_rows_that_would_make_no_skill_are_refused(case: str, workspace: Workspace) -> None:
    examples, words = REFUSED[case]
    with pytest.raises(DataError, match=re.escape(words)):
        add_skill(workspace, "mine", examples, "mine.jsonl")
    assert workspace.ledger.skills() == []
    assert len(workspace.artifacts.digests()) == 1


@pytest.mark.parametrize("name", ["", "a b", "a/b", "../a", "a.b", "-", "--json", "arithmetic", "facts", "a\n", "a'"])
def test_names_that_would_be_no_names(name: str, workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match="name a skill by letters"):
        add_skill(workspace, name, made_up.rows("a"), "a.jsonl")


@pytest.mark.parametrize("name", ["tools", "a-b_2", "français", "東京", "9"])
def test_names(name: str, workspace: Workspace) -> None:
    add_skill(workspace, name, made_up.rows("a"), "a.jsonl")
    assert [skill.name for skill in workspace.ledger.skills()] == [name]
    with pytest.raises(DataError, match="a skill of this name is registered, and never changes; choose another name"):
        add_skill(workspace, name, made_up.rows("b"), "b.jsonl")
    assert data_hash(workspace.rows(workspace.ledger.skill(name))) == data_hash(made_up.rows("a"))


def test_no_skill_teaches_what_another_one_or_a_probe_asks(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "FAMILIES", ("facts",))  # all would take seconds
    add_skill(workspace, "a", made_up.rows("a"), "a.jsonl")
    probe = probes.probe_bank("facts").examples[0]
    for mine, words in (
        (row("mine", "And a3?"), "row 'mine' teaches what row 'a-test-3' of a asks; remove it"),
        (row("mine", "Where is a1?", split="test"), "row 'mine' asks what row 'a-1' of a teaches; remove it"),
        (row("mine", probe.question), f"row 'mine' teaches what row {probe.id!r} of facts asks; remove it"),
    ):
        with pytest.raises(DataError, match=re.escape(words)):
            CHECK_APART(workspace, [mine], "mine.jsonl")
    CHECK_APART(workspace, [row("mine", "And a3?", split="test"), row("more", "Where is a1?")], "mine.jsonl")


def test_no_data_and_no_such_built_in_skill() -> None:
    with pytest.raises(ConfigError, match="cooking: give its data, a file or a hub data set; built in are "):
        load_skill("cooking", None)


def test_a_damaged_head_is_told_before_anything_is_registered(workspace: Workspace) -> None:
    (workspace.model_folder(workspace.ledger.head()) / "config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(OSError, match=r"v0: its weights cannot be used: .* restore it from a backup"):
        add_skill(workspace, "a", made_up.rows("a"), "a.jsonl")
    assert workspace.ledger.skills() == []
