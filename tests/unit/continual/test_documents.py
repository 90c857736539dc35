"""Learning from documents: which piece goes with a question, what the report holds, and what a resumed run refuses."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from chat_server import chat_server

from selftaught.config import LearnConfig
from selftaught.config_files import load_config
from selftaught.continual import asking
from selftaught.continual import documents as module
from selftaught.continual.asking import Asking, together
from selftaught.continual.documents import learn_documents
from selftaught.continual.jobs import Event
from selftaught.errors import ConfigError, DataError, ModelError
from selftaught.evaluation import chat
from selftaught.questions import QUESTIONS_FILE, REJECTED_FILE
from selftaught.questions.making import PARTS
from selftaught.types import Example, Message

PLACES = {"Ola": "Lima", "Bex": "Rome", "Cid": "Oslo"}
SETTINGS = [
    *["probes=false", "steps=2", "batch_size=2", "anchor.rows=0", "rollout.max_new_tokens=8", "warmup_steps=1"],
    *["weights.kind=full", "dtype=float32"],
]
CONFIG = load_config(None, SETTINGS)
TRAIN = [{"id": name, "question": f"Where is {name}?", "answer": f"In {place}."} for name, place in PLACES.items()]
TEST = {"id": "test", "question": "Which town has Ola?", "answers": ["Lima"], "split": "test", "group": "paraphrase"}
OWN = {"id": "own", "question": "And Bex?", "answer": "In Rome.", "context": "Bex is in Rome, they say."}


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the disk has kept after a power cut is not what is tested here."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def write_documents(folder: Path) -> Path:
    folder.mkdir()
    for name, place in PLACES.items():
        (folder / f"{name}.txt").write_text(f"{name} is in {place}.", encoding="utf-8")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A document about each place."""
    return write_documents(tmp_path / "places")


def write_questions(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    return write_questions(tmp_path / "own.jsonl", *TRAIN, TEST, OWN)


class Boundless:
    """Room for any document."""

    def holds(self, row: Example) -> bool:
        return True


@pytest.fixture
def lessons(monkeypatch: pytest.MonkeyPatch) -> list[list[Example]]:
    """The rows of every lesson that was to be taught; none is."""
    taught: list[list[Example]] = []

    def noted(rows: Sequence[Example], *words: Any) -> dict[str, Any]:
        taught.append(list(rows))
        return {}

    monkeypatch.setattr(module, "taught_and_reported", noted)
    monkeypatch.setattr(module, "room_of", lambda *words: Boundless())
    monkeypatch.setattr("selftaught.models.resolve.resolve_model", Path)  # nor is there a model to be taught
    return taught


# ------------------------------------------------------------------------------- a person's own questions


def test_a_question_without_a_document_gets_the_piece_that_fits_it_best(
    folder: Path, questions: Path, tmp_path: Path, lessons: list[list[Example]]
) -> None:
    learn_documents(folder, "no model", tmp_path / "run", CONFIG, questions=questions)
    contexts = {row.id: row.context for row in lessons[0]}
    assert contexts == {
        **{name: f"{name} is in {place}." for name, place in PLACES.items()},
        "test": "Ola is in Lima.",
        "own": OWN["context"],
    }


def test_a_question_that_fits_no_piece_stays_without(
    folder: Path, tmp_path: Path, lessons: list[list[Example]]
) -> None:
    path = write_questions(tmp_path / "own.jsonl", *TRAIN, {**TEST, "question": "Who rules Utopia?"})
    learn_documents(folder, "no model", tmp_path / "run", CONFIG, questions=path)
    assert lessons[0][-1].context is None


def test_a_document_of_ones_own_that_is_too_long_is_shown_in_part_and_that_is_said(
    folder: Path, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiny model holds 2048 tokens, a byte each."""
    pieces = [f"{name} is in {place}. " + "It rained. " * 60 for name, place in PLACES.items()]
    long = {**OWN, "context": "\n\n".join(piece.strip() + " So it was." * 40 for piece in pieces)}
    path = write_questions(tmp_path / "own.jsonl", *TRAIN, {**TEST, "context": long["context"]}, long)
    rows: list[Example] = []
    reports: list[dict[str, Any]] = []
    events: list[Event] = []

    def noted(given: Sequence[Example], *words: Any) -> dict[str, Any]:
        rows.extend(given)
        reports.append(words[-1]([]))
        return {}

    monkeypatch.setattr(module, "taught_and_reported", noted)
    begin(folder, path, tmp_path / "run", model=str(tiny_model), watch=events.append)
    shown = {row.id: row.context for row in rows}
    assert str(shown["own"]).startswith("Bex is in Rome. It rained.")
    assert len(str(shown["own"])) < 2048
    assert shown["test"] == long["context"]  # nobody is shown it
    cut = [{"id": "own", "shown": 1, "pieces": 3}]
    assert reports[0]["contexts"] == cut
    assert [event.values["rows"] for event in events if event.stage == "contexts"] == [cut]


def test_several_pieces_may_go_with_a_question(folder: Path, tmp_path: Path, lessons: list[list[Example]]) -> None:
    path = write_questions(
        tmp_path / "own.jsonl", {"id": "a", "question": "Where are Bex and Cid?", "answer": "There."}
    )
    begin(folder, path, tmp_path / "run", config=load_config(None, [*SETTINGS, "questions.pieces=2"]))
    assert lessons[0][0].context == "Bex is in Rome.\n\nCid is in Oslo."


def test_own_rows_to_teach_replace_the_made_ones(
    folder: Path, questions: Path, tmp_path: Path, lessons: list[list[Example]]
) -> None:
    learn_documents(folder, "no model", tmp_path / "run", CONFIG, questions=questions)
    assert [row.id for row in lessons[0]] == [*PLACES, "test", "own"]
    assert not (tmp_path / "run" / QUESTIONS_FILE).exists()


# ---------------------------------------------------------------------------------------- going on


def begin(folder: Path, questions: Path, out: Path, resume: bool = False, **words: Any) -> dict[str, Any]:
    return learn_documents(
        folder, **{"model": "no model", "out": out, "config": CONFIG, "questions": questions, "resume": resume, **words}
    )


def change(folder: Path) -> None:
    (folder / "Ola.txt").write_text("Ola is in Cork.", encoding="utf-8")


def add(folder: Path) -> None:
    (folder / "Dov.txt").write_text("Dov is in Cork.", encoding="utf-8")


def remove(folder: Path) -> None:
    (folder / "Ola.txt").unlink()


@pytest.mark.parametrize("spoil", [change, add, remove], ids=lambda spoil: spoil.__name__)
def test_changed_documents_are_not_gone_on_with(
    spoil: Any, folder: Path, questions: Path, tmp_path: Path, lessons: list[list[Example]]
) -> None:
    begin(folder, questions, tmp_path / "run")
    spoil(folder)
    for _ in range(2):  # refused, it does not take them for its own
        with pytest.raises(
            ConfigError, match=r"(Ola|Dov)\.txt has changed since the run in .*; put it back, or choose another --out"
        ):
            begin(folder, questions, tmp_path / "run", resume=True)
    assert len(lessons) == 1


def test_a_file_that_nothing_is_taught_of_may_come_meanwhile(
    folder: Path, questions: Path, tmp_path: Path, lessons: list[list[Example]]
) -> None:
    begin(folder, questions, tmp_path / "run")
    (folder / "Thumbs.db").write_bytes(b"")
    begin(folder, questions, tmp_path / "run", resume=True)
    assert lessons[0] == lessons[1]


def test_a_folder_that_could_not_be_read_leaves_the_place_free(
    folder: Path, questions: Path, tmp_path: Path, lessons: list[list[Example]]
) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.xyz").write_bytes(b"x")
    with pytest.raises(DataError, match="none of its files can be read"):
        begin(tmp_path / "bad", questions, tmp_path / "run")
    begin(folder, questions, tmp_path / "run")
    assert len(lessons) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems refuse such names")
def test_a_place_whose_name_is_no_unicode_is_learned_from(
    questions: Path, tmp_path: Path, lessons: list[list[Example]]
) -> None:
    odd = write_documents(Path(os.fsdecode(os.fsencode(tmp_path) + b"/x\xff\xfe")))
    begin(odd, questions, tmp_path / "run")
    begin(odd, questions, tmp_path / "run", resume=True)
    assert len(lessons) == 2


def test_the_same_documents_are_gone_on_with(
    folder: Path, questions: Path, tmp_path: Path, lessons: list[list[Example]]
) -> None:
    begin(folder, questions, tmp_path / "run")
    begin(folder, questions, tmp_path / "run", resume=True)
    assert lessons[0] == lessons[1]


def test_a_run_inside_the_folder_of_its_documents_is_gone_on_with(
    folder: Path, questions: Path, lessons: list[list[Example]]
) -> None:
    begin(folder, questions, folder / "runs" / "learn")
    begin(folder, questions, folder / "runs" / "learn", resume=True)
    assert lessons[0] == lessons[1]


def test_what_is_asked_is_not_taught() -> None:
    def row(name: str, question: str, split: str) -> Example:
        return Example(name, (Message("user", question),), "In Lima.", split=split)  # type: ignore[arg-type]

    made = [row("a", "Where is Ola?", "train"), row("b", "Who is Ola?", "train")]
    own = [row("c", "Where  is OLA?", "test")]
    assert [one.id for one in together(made, own)] == ["b", "c"]


def test_changed_questions_are_not_gone_on_with(
    folder: Path, questions: Path, tmp_path: Path, lessons: list[list[Example]]
) -> None:
    begin(folder, questions, tmp_path / "run")
    write_questions(questions, *TRAIN[:2])
    with pytest.raises(ConfigError):
        begin(folder, questions, tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("name", "value"), [("generator", "none"), ("model", "another"), ("beside", ["sft"]), ("config", LearnConfig())]
)
def test_another_run_is_not_gone_on_with(
    name: str, value: Any, folder: Path, questions: Path, tmp_path: Path, lessons: list[list[Example]]
) -> None:
    begin(folder, questions, tmp_path / "run")
    with pytest.raises(ConfigError, match="holds another run"):
        begin(folder, questions, tmp_path / "run", resume=True, **{name: value})


def test_documents_that_are_not_there_leave_room_for_those_that_are(
    folder: Path, questions: Path, tmp_path: Path, lessons: list[list[Example]]
) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        begin(tmp_path / "nowhere", questions, tmp_path / "run")
    begin(folder, questions, tmp_path / "run")
    assert len(lessons) == 1


def test_a_model_that_is_not_there_leaves_room_for_one_that_is(
    folder: Path, questions: Path, tmp_path: Path, tiny_model: Path
) -> None:
    with pytest.raises(ModelError, match="no such model directory"):
        begin(folder, questions, tmp_path / "run", model=str(tmp_path / "nowhere"))
    with pytest.MonkeyPatch.context() as context:
        context.setattr(module, "taught_and_reported", lambda *words: {})
        begin(folder, questions, tmp_path / "run", model=str(tiny_model))


# --------------------------------------------------------------------------------------- the report


class FirstLine:
    """A writer who tells of a document what stands in its first line; the tiny model would say nothing."""

    name = "first line"

    def write(self, asked: Sequence[Sequence[Message]], *words: Any) -> list[str]:
        assert all("Write a question" not in turns[-1].content for turns in asked)
        return [turns[-1].content.split("\n")[0] for turns in asked]


@pytest.fixture(scope="module")
def general(sharp_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[Event]]:
    """A whole run of the tiny model, with general requests instead of questions; its folder is not to be changed."""
    place = tmp_path_factory.mktemp("general")
    folder, events = write_documents(place / "places"), []
    own = write_questions(place / "own.jsonl", TEST)
    (folder / "notes.xyz").write_text("?", encoding="utf-8")
    with pytest.MonkeyPatch.context() as context:
        context.setattr(asking, "open_writer", lambda *words: FirstLine())
        report = learn_documents(
            *(folder, str(sharp_model), place / "run", CONFIG, "none", own, ["oracle"]),
            watch=events.append,
            processes=1,
        )
    return place / "run", report, events


def test_the_report_holds_what_became_of_each_document(general: tuple[Path, dict[str, Any], list[Event]]) -> None:
    told = {record["path"]: record["status"] for record in general[1]["documents"]}
    assert told == {**{f"{name}.txt": "read" for name in PLACES}, "notes.xyz": "unsupported"}


def test_the_report_holds_how_many_questions_were_kept(general: tuple[Path, dict[str, Any], list[Event]]) -> None:
    out, report, _ = general
    kept, rejected = ((out / name).read_text(encoding="utf-8").splitlines() for name in (QUESTIONS_FILE, REJECTED_FILE))
    assert report["questions"]["kept"] == len(kept)
    assert sum(report["questions"].values()) == len(kept) + len(rejected) == 9


def test_the_report_holds_two_accuracies_of_each_run_and_group(
    general: tuple[Path, dict[str, Any], list[Event]],
) -> None:
    knowledge = general[1]["knowledge"]
    assert list(knowledge) == ["base", "oracle", "sdft"]
    for groups in knowledge.values():
        assert set(groups) == {"telling", "paraphrase"}
        assert all({"strict", "lenient"} < set(one) for one in groups.values())


def test_the_report_is_written_as_it_is_returned(general: tuple[Path, dict[str, Any], list[Event]]) -> None:
    out, report, _ = general
    assert json.loads((out / "report.json").read_text(encoding="utf-8")) == report
    assert json.loads((out / "documents.json").read_text(encoding="utf-8")) == report["documents"]


def test_no_half_made_questions_are_left(general: tuple[Path, dict[str, Any], list[Event]]) -> None:
    assert not (general[0] / PARTS).exists()


def test_without_a_generator_there_are_general_requests(general: tuple[Path, dict[str, Any], list[Event]]) -> None:
    rows = [json.loads(line) for line in (general[0] / QUESTIONS_FILE).read_text(encoding="utf-8").splitlines()]
    assert {row["group"] for row in rows} == {"telling"}


def test_made_questions_that_were_edited_are_not_gone_on_with(
    general: tuple[Path, dict[str, Any], list[Event]], sharp_model: Path, tmp_path: Path
) -> None:
    place = general[0].parent
    shutil.copytree(place, tmp_path / "copy")
    path = tmp_path / "copy" / "run" / QUESTIONS_FILE
    path.write_text(path.read_text(encoding="utf-8").split("\n", 1)[1], encoding="utf-8")
    edited = Asking(Path(), (), str(sharp_model), "none", CONFIG, path.parent)
    with pytest.raises(ConfigError, match="was edited; give it with --questions"):
        asking.made_questions(edited, lambda event: None, 1)


def test_a_watcher_is_told_of_each_stage_in_its_order(general: tuple[Path, dict[str, Any], list[Event]]) -> None:
    stages = list(dict.fromkeys(event.stage for event in general[2]))
    assert stages[:4] == ["reading", "documents", "loading the model", "asking"]


def test_a_finished_run_gives_its_report_again(
    general: tuple[Path, dict[str, Any], list[Event]], sharp_model: Path
) -> None:
    out, report, _ = general
    place, events = out.parent, []
    again = learn_documents(
        *(place / "places", str(sharp_model), out, CONFIG, "none", place / "own.jsonl", ["oracle"], True, events.append)
    )
    assert "asking" not in {event.stage for event in events}
    assert {name: again[name] for name in ("documents", "questions", "knowledge")} == {
        name: report[name] for name in ("documents", "questions", "knowledge")
    }


# ---------------------------------------------------------------------------------------- the judge


def judged(
    general: tuple[Path, dict[str, Any], list[Event]], model: Path, judge: str | None, watch: Any = lambda event: None
) -> dict[str, Any]:
    """The report of the finished run, gone on with."""
    out, place = general[0], general[0].parent
    words = (place / "places", str(model), out, CONFIG, "none", place / "own.jsonl", ["oracle"], True, watch)
    return learn_documents(*words, judge=judge)


def test_without_a_judge_tellings_are_not_scored(general: tuple[Path, dict[str, Any], list[Event]]) -> None:
    report = general[1]
    assert report["judge"] is None
    told = report["knowledge"]["base"]["telling"]
    assert (told["strict"], told["not_scored"]) == (None, 9)


def test_a_finished_run_can_be_judged_and_is_not_judged_twice(
    general: tuple[Path, dict[str, Any], list[Event]], sharp_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat.time, "sleep", lambda seconds: None)
    out, events = general[0], []
    with chat_server(lambda body: "CORRECT") as server:

        def dies(body: dict[str, Any]) -> str:
            if len(server.asked) >= 5:
                raise RuntimeError("out of order")
            return "CORRECT"

        server.say = dies
        with pytest.raises(ConfigError, match=r"the judge gives no answer .*--resume"):
            judged(general, sharp_model, server.address)
        kept = len((out / "judged.jsonl").read_text(encoding="utf-8").splitlines())
        assert kept > 0
        server.say, server.asked = lambda body: "CORRECT", []
        report = judged(general, sharp_model, server.address, events.append)
        first, server.asked = len(server.asked), []
        again = judged(general, sharp_model, server.address)
    assert not server.asked
    assert again["knowledge"] == report["knowledge"]
    assert first + kept == len({line["key"] for line in map(json.loads, read_lines(out / "judged.jsonl"))})
    assert report["judge"]["answers"] == 30
    assert report["judge"]["agreement"]["strict"]["n"] == 3
    assert report["knowledge"]["base"]["telling"]["by_judge"] == 9
    assert "judging" in {event.stage for event in events}


def read_lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line]


def test_a_judge_that_does_not_answer_leaves_the_place_free(
    folder: Path, questions: Path, tmp_path: Path, lessons: list[list[Example]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat.time, "sleep", lambda seconds: None)
    with chat_server(lambda body: "CORRECT") as server:
        address = server.address
    with pytest.raises(ConfigError, match="the judge gives no answer"):
        begin(folder, questions, tmp_path / "run", judge=address)
    assert not lessons
    begin(folder, questions, tmp_path / "run")
    assert len(lessons) == 1
