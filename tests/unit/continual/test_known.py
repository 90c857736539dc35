"""What models know of documents: rules, a judge behind an address, and how far the two agree."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from chat_server import chat_server

from selftaught.continual.knowledge import known
from selftaught.evaluation.judge import Judge
from selftaught.types import Example, Message, Scorer

PLACES = {"Ola": "Lima", "Bex": "Rome", "Cid": "Oslo", "Dov": "Cork"}


def row(name: str, group: str, **fields: Any) -> Example:
    fields = {"answers": (PLACES[name],), "context": f"{name} is in {PLACES[name]}, by the sea.", **fields}
    return Example(
        f"{name}-{group}", (Message("user", f"Where is {name}?"),), f"In {PLACES[name]}.", group=group, **fields
    )


def record(name: str, **said: str) -> dict[str, Any]:
    results = [{"id": id.replace("_", "-"), "completion": text} for id, text in said.items()]
    return {"name": name, "results": results}


ROWS = [
    *(row(name, "a") for name in PLACES),
    row("Ola", "telling", scorer=Scorer("keywords")),
    row("Bex", "own", answers=()),
    row("Cid", "neighbour", answers=("anything but oslo",), scorer=Scorer("regex", {"pattern": "(?i)^(?!.*oslo)"})),
]
SAID = record(
    "sdft", Ola_a="In Lima.", Bex_a="By the sea.", Cid_a="In Rome.", Dov_a="In Cork.", Ola_telling="Ola is by the sea.",
    Bex_own="In Rome.", Cid_neighbour="I do not know.",
)  # fmt: skip


def test_without_a_judge_what_rules_cannot_tell_is_not_scored() -> None:
    found = known(ROWS, [SAID])
    assert found["judge"] is None
    nothing = {"strict": None, "lenient": None, "by_judge": 0, "not_scored": 1}
    assert found["knowledge"] == {
        "sdft": {
            "a": {"strict": 0.5, "lenient": 0.5, "by_judge": 0, "not_scored": 0},
            "telling": nothing,
            "own": nothing,
            "neighbour": {"strict": 1.0, "lenient": 1.0, "by_judge": 0, "not_scored": 0},
        }
    }


def test_lenient_is_some_of_it() -> None:
    longer = [
        Example(
            "x",
            (Message("user", "Where is Ola?"),),
            "In Lima by the sea.",
            "Ola is in Lima.",
            scorer=Scorer("keywords"),
        )
    ]
    found = known(longer, [record("base", x="By the sea.")])["knowledge"]["base"]["direct"]
    assert (found["strict"], found["lenient"]) == (0.0, 1.0)


VERDICTS = {
    "In Lima.": "CORRECT",
    "By the sea.": "PARTLY",
    "In Rome.": "WRONG",
    "In Cork.": "WRONG",
    "Ola is by": "PARTLY",
}


def says(body: dict[str, Any]) -> str:
    asked = body["messages"][-1]["content"]
    answer = re.findall(r"Answer:\n(.*)\n\nReply", asked)[0]
    if "Bex is in Rome" in asked and answer == "In Rome.":
        return "CORRECT"
    return next(verdict for start, verdict in VERDICTS.items() if answer.startswith(start))


def test_a_judge_scores_what_rules_cannot_and_is_compared_on_the_rest(tmp_path: Path) -> None:
    with chat_server(says) as server:
        found = known(ROWS, [SAID], Judge(server.address, tmp_path / "judged.jsonl"))
        assert len(server.asked) == 6  # the neighbour has nothing to compare with
    knowledge = found["knowledge"]["sdft"]
    assert knowledge["telling"] == {"strict": 0.0, "lenient": 1.0, "by_judge": 1, "not_scored": 0}
    assert knowledge["own"] == {"strict": 1.0, "lenient": 1.0, "by_judge": 1, "not_scored": 0}
    assert knowledge["a"] == {"strict": 0.5, "lenient": 0.5, "by_judge": 0, "not_scored": 0}  # rules go first
    judge = found["judge"]
    assert (judge["name"], judge["answers"], judge["unreadable"]) == (server.address, 6, 0)
    # By rules (strict and lenient alike) right, wrong, wrong, right; the judge: right, partly, wrong, wrong.
    assert judge["agreement"]["strict"] == {"n": 4, "share": 0.75, "kappa": pytest.approx(0.5)}
    assert judge["agreement"]["lenient"] == {"n": 4, "share": 0.5, "kappa": pytest.approx(0.0)}


def test_a_reply_without_a_verdict_leaves_its_answer_unscored(tmp_path: Path) -> None:
    with chat_server(lambda body: "Hm.") as server:
        found = known(ROWS, [SAID], Judge(server.address, tmp_path / "judged.jsonl"))
    assert found["judge"]["unreadable"] == 6
    assert found["judge"]["agreement"]["strict"] == {"n": 0, "share": None, "kappa": None}
    assert found["knowledge"]["sdft"]["telling"]["not_scored"] == 1
