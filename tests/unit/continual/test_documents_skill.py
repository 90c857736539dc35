"""Skills made of documents: what is asked about, what is registered, and which document taught what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import made_up
import pytest
from made_up import ITEMS, make, teach

from selftaught.config import LearnConfig
from selftaught.continual import documents_skill as module
from selftaught.continual import views
from selftaught.continual.documents_skill import documents_skill
from selftaught.continual.registry import add_skill
from selftaught.continual.workspace import Workspace
from selftaught.errors import ConfigError

PLACES = {"Ola": "Lima", "Bex": "Rome"}


@pytest.fixture(autouse=True)
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    made_up.install(monkeypatch.setattr)
    monkeypatch.setattr(module, "room_of", lambda *words: None)
    monkeypatch.setattr(module, "fitted", lambda rows, *words: (rows, []))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return make(tmp_path / "work")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A document about each place."""
    (tmp_path / "places").mkdir()
    for name, place in PLACES.items():
        (tmp_path / "places" / f"{name}.txt").write_text(f"{name} is in {place}.", encoding="utf-8")
    return tmp_path / "places"


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """One question to teach about each, and as many to ask as the gate needs."""
    rows = [{"id": name, "question": f"Where is {name}?", "answer": f"In {place}."} for name, place in PLACES.items()]
    rows += [
        {"id": f"test-{n}", "question": f"Where is Ola, asked {n} times?", "answers": ["Lima"], "split": "test"}
        for n in range(ITEMS)
    ]
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The documents that each call was to ask about; none is."""
    found: list[list[str]] = []

    def noted(asking: Any, *words: Any) -> tuple[list[Any], dict[str, int]]:
        found.append([record.path for record in asking.records])
        return [], {}

    monkeypatch.setattr(module, "made_questions", noted)
    return found


def register(workspace: Workspace, name: str, folder: Path, questions: Path) -> None:
    add_skill(workspace, name, *documents_skill(workspace, name, folder, LearnConfig(), questions=questions))


def test_a_version_shows_which_document_taught_it_what(workspace: Workspace, folder: Path, questions: Path) -> None:
    register(workspace, "a", folder, questions)
    assert teach(workspace, "a", 1).status == "promoted"
    rows = views.taught_documents(workspace, "HEAD")
    assert [(row["document"], row["version"], row["skill"]) for row in rows] == [
        ("Ola.txt", "v1", "a"),
        ("Bex.txt", "v1", "a"),
    ]
    assert [(row["taught"], row["asked"], row["correct"]) for row in rows] == [(1, ITEMS, 30), (1, 0, 0)]
    assert all(len(row["digest"]) == 64 for row in rows)
    assert views.taught_documents(workspace, "v0") == []


def test_only_documents_that_are_new_or_have_changed_are_asked_about(
    workspace: Workspace, folder: Path, questions: Path, asked: list[list[str]]
) -> None:
    register(workspace, "a", folder, questions)
    (folder / "Ola.txt").write_text("Ola is in Cork.", encoding="utf-8")
    (folder / "Dov.txt").write_text("Dov is in Nice.", encoding="utf-8")
    (folder / "Bex.txt").rename(folder / "moved.txt")
    for _ in range(2):  # asked for again, it asks about the same
        documents_skill(workspace, "again", folder, LearnConfig())
    assert asked == [["Dov.txt", "Ola.txt"]] * 2


def test_where_nothing_has_changed_that_is_said(
    workspace: Workspace, folder: Path, questions: Path, asked: list[list[str]]
) -> None:
    register(workspace, "a", folder, questions)
    with pytest.raises(ConfigError, match="nothing has changed since a was made of it"):
        documents_skill(workspace, "again", folder, LearnConfig())
    documents_skill(workspace, "again", folder, LearnConfig(), questions=questions)  # with questions of one's own
    assert asked == []


def test_without_a_generator_a_skill_has_general_requests(
    workspace: Workspace, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forms = []
    monkeypatch.setattr(
        module, "made_questions", lambda asking, *words: (forms.append(asking.config.questions.form), ([], {}))[1]
    )
    documents_skill(workspace, "a", folder, LearnConfig(), generator="none")
    documents_skill(workspace, "a", folder, LearnConfig())
    assert forms == ["general", "questions"]
