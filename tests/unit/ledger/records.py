"""Made-up records for the tests of the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selftaught.ledger.records import Evaluation, Skill, Version
from selftaught.ledger.store import Ledger

SKILL = Skill("tools", "2026-01-01T00:00:00Z", "tools.jsonl", "d" * 64, "e" * 64, 32, {"counts": {"é": 1}})
VERDICT: dict[str, Any] = {
    "outcome": "promoted",
    "sentence": "promoted: …",
    "checks": [{"name": "tools"}],
    "policy": {},
}
TRAINING = {"steps": 3, "seconds": 0.1, "curve": [{"step": 1}]}


def version(parent: int) -> Version:
    return Version(
        -1,
        parent,
        "tools",
        "2026-01-01T00:00:00Z",
        "sdft",
        {"seed": 7},
        7,
        "d" * 64,
        "0",
        "a" * 64,
        None,
        0.1,
        TRAINING,
    )


def evaluation(suite: str = "tools", items_hash: str = "h", correct: int = 3) -> Evaluation:
    return Evaluation(suite, "skill", items_hash, correct, 5, "f" * 64)


def made(path: Path) -> Ledger:
    """A ledger with the base and one skill."""
    ledger = Ledger(path, create=True)
    ledger.add_base("b" * 64, "the base")
    ledger.add_skill(SKILL)
    return ledger


def taught(ledger: Ledger, parent: int, status: str = "promoted") -> Version:
    return ledger.add_version(
        version(parent), [evaluation(), evaluation("facts")], VERDICT, status, f"{status} because"
    )
