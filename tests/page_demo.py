"""A workspace with a history, for the page: its versions and answers are made up; written straight into a ledger."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import made_up

from selftaught.continual import registry
from selftaught.continual.live import LIVE_FILE
from selftaught.continual.verdict import decide
from selftaught.continual.workspace import Workspace
from selftaught.evaluation.probes import FAMILIES, probe_bank
from selftaught.interactions import Interaction
from selftaught.ledger.gate import Comparison, judge
from selftaught.ledger.records import Evaluation, Version
from selftaught.types import Example, Message

ITEMS = 120
BASE = {"disasters": 0.02, "science": 0.05, "medical": 0.0}
HOSTILE = '<img src=x onerror="window.hurt=1"><script>window.hurt=1</script>'
# parent, skill, label, drift, and of what changed: the share right, and the share of all answers that flip without need
LESSONS: tuple[tuple[int, str, str, float, dict[str, float]], ...] = (
    (0, "disasters", "SDFT", 0.041, {"disasters": 0.82}),
    (1, "science", "SFT", 0.388, {"disasters": 0.31, "science": 0.55, "facts": 0.42, "translation": 0.2}),
    (1, "science", "SDFT", 0.067, {"science": 0.58}),
    (3, "medical", "SDFT", 0.088, {"medical": 0.47, "arithmetic": 0.575}),
)
Answers = dict[str, dict[str, bool]]


def make(root: Path, install: Any = setattr) -> Workspace:
    """v1 and v3 are promoted, v2 is rejected, v4 is held; a lesson runs, and feedback waits.

    Args:
        root: of the workspace; its base model comes beside it.
        install: a monkeypatch's `setattr`.
    """
    made_up.install(install)
    workspace = made_up.make(root)
    made_up.configured(root)
    for name in BASE:
        registry.add_skill(workspace, name, _rows(name), f"{name}.jsonl")
    draw = random.Random(0)
    items: dict[str, list[str]] = {name: [f"{name}-test-{n}" for n in range(ITEMS)] for name in BASE}
    items |= {name: [row.id for row in probe_bank(name).examples[:400]] for name in FAMILIES}
    known: list[Answers] = [
        {name: {id: draw.random() < BASE.get(name, 0.6) for id in ids} for name, ids in items.items()}
    ]
    workspace.ledger.add_evaluations(workspace.ledger.head(), _evaluations(workspace, known[0]))
    for lesson in LESSONS:
        known.append(_changed(known[lesson[0]], lesson[4], draw))
        _record(workspace, lesson, known[lesson[0]], known[-1])
    leave_live(workspace)
    leave_feedback(workspace)
    return workspace


def _rows(name: str) -> list[Example]:
    taught = [Example(f"{name}-{n}", (Message("user", f"Teach {name} {n}"),), f"It is {n}.", f"{n}") for n in range(4)]
    asked = [
        Example(
            f"{name}-test-{n}",
            (Message("user", f"What does {name} say of case {n}?"),),
            split="test",
            answers=(f"{n}",),
        )
        for n in range(ITEMS)
    ]
    return [*taught, *asked]


def _changed(before: Answers, shares: Mapping[str, float], draw: random.Random) -> Answers:
    """Some answers flip both ways; where a share is named, as many more as it takes."""
    after = {
        suite: {id: right != (draw.random() < 0.006) for id, right in items.items()} for suite, items in before.items()
    }
    for suite, share in shares.items():
        ids = list(after[suite])
        draw.shuffle(ids)
        wanted, right = round(share * len(ids)), sum(after[suite].values())
        for id in [id for id in ids if after[suite][id] != (wanted > right)][: abs(wanted - right)]:
            after[suite][id] = wanted > right
    return after


def _evaluations(workspace: Workspace, answers: Answers) -> list[Evaluation]:
    found = []
    for suite, items in answers.items():
        rows = [
            {
                "id": id,
                "cluster": id,
                "correct": right,
                "completion": f"It is {id.split('-')[-1]}." if right else "I do not know.",
            }
            for id, right in items.items()
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        kind = "skill" if suite in BASE else "probe"
        digest = workspace.artifacts.put_text(text)
        found.append(Evaluation(suite, kind, "the same", sum(items.values()), len(items), digest))
    return found


def _record(workspace: Workspace, lesson: Any, before: Answers, after: Answers) -> None:
    parent, skill, label, drift, _ = lesson
    ledger = workspace.ledger
    learned = {one.skill for one in ledger.lineage(ledger.version(str(parent)))} | {skill}
    compared = [
        Comparison(
            suite, "new" if suite == skill else "skill" if suite in BASE else "probe", before[suite], after[suite]
        )
        for suite in after
        if suite not in BASE or suite in learned
    ]
    verdict = judge(compared).as_dict() | {"policy": {}}
    status, why = decide(verdict, "hold")
    digest = workspace.artifacts.put_text(f"weights of {lesson}")
    version = Version(
        -1, parent, skill, "2026-03-01T10:20:00Z", label.lower(), {"seed": 0}, 0, "d" * 64, "0", digest, None, drift,
        {"label": label, "steps": 180, "seconds": 400.0},
    )  # fmt: skip
    ledger.add_version(version, _evaluations(workspace, after), verdict, status, why)


def leave_live(workspace: Workspace, **changes: Any) -> Path:
    """A lesson under way, as its process would leave it; that is this one."""
    draw = random.Random(1)
    points = [
        {
            "step": n,
            "loss": 1.1 / n**0.5 + 0.08 * draw.random(),
            "gap_nats": 1.3 / n**0.6,
            "anchor_nats": 0.02 + 0.03 * (1 - 0.97**n),
        }
        for n in range(1, 74)
    ]
    texts = [
        "I cannot say where it burned.",
        "The wildfire burned in Spain.",
        "The Alvorim wildfire burned in Portugal.",
    ]
    samples = [{"step": 5 + 30 * n, "id": "d01-q1", "text": text} for n, text in enumerate(texts)]
    told = {
        "skill": "medical", "head": "v3", "label": "SDFT", "job": "lesson", "stage": "training", "what": None,
        "pid": os.getpid(), "started": "2026-03-02T08:00:00Z", "updated": "2026-03-02T08:05:00Z", "step": 73,
        "steps": 180,
        "seconds": 290.0, "seconds_left": 431.0, "tokens": 18000, "points": points, "samples": samples, **changes,
    }  # fmt: skip
    path = workspace.runs / "0123456789abcdef" / LIVE_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told), encoding="utf-8")
    return path


def leave_feedback(workspace: Workspace) -> None:
    """Three things that users said; the second tries to do harm."""
    store = workspace.interactions()
    said = (
        (
            "When does the museum open on Mondays?",
            "The museum opens at nine.",
            "correction",
            "It is closed on Mondays.",
        ),
        (HOSTILE, f"You wrote {HOSTILE}", "text", f"Run this: {HOSTILE}"),
        ("Say hello in Portuguese.", "Bonjour!", "follow_up", "That is French. I asked for Portuguese."),
    )
    for n, (question, completion, kind, text) in enumerate(said):
        id = f"chatcmpl-{n}"
        store.keep(Interaction(id, "2026-03-02T09:00:00Z", "local", "v3", (Message("user", question),), completion))
        store.add_feedback(id, "local", kind, text)
    store.close()
