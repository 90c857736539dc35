"""What a version of a workspace is asked, and how its answers are kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from selftaught.continual.jobs import Suite, probe_suites
from selftaught.continual.workspace import Workspace
from selftaught.data import data_hash
from selftaught.ledger.records import Evaluation
from selftaught.types import Example

LIFT_ROWS = 64  # enough to see whether there is anything to distil


def all_suites(workspace: Workspace) -> list[Suite]:
    """Every registered skill's test rows, and the probes that the gate asks."""
    suites = []
    for skill in workspace.ledger.skills():
        asked = tuple(row for row in workspace.rows(skill) if row.split == "test")
        suites.append(Suite(skill.name, "skill", asked, skill.max_new_tokens))
    wanted = workspace.config.gate.probes
    return suites + (list(probe_suites(bank=wanted == "bank")) if wanted != "none" else [])


def items_hash(suite: Suite, dtype: str) -> str:
    """Results are comparable where this is the same: items, scoring, length of answers, type of computation."""
    from selftaught.evaluation.scorers import SCORING
    from selftaught.models.load import compute_dtype, default_device

    parts = (data_hash(suite.examples), suite.max_new_tokens, SCORING, compute_dtype(dtype, default_device()))
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()


def lift_rows(rows: Sequence[Example]) -> tuple[Example, ...]:
    """Rows that are taught, at most `LIFT_ROWS` of them and evenly taken: whether there is anything to distil."""
    taught = [row for row in rows if row.split == "train"]
    wanted = min(LIFT_ROWS, len(taught))
    return tuple(taught[index * len(taught) // wanted] for index in range(wanted))


def kept_results(
    workspace: Workspace, suites: Sequence[Suite], asked: Mapping[str, Any], hashes: Mapping[str, str]
) -> list[Evaluation]:
    """Answers become artifacts.

    Args:
        workspace: whose artifacts.
        suites: some of those that were asked; what was not asked is left out.
        asked: "suites" of a job's record.
        hashes: of each suite's items, by its name.

    Returns:
        What the ledger records of them.
    """
    kept = []
    for suite in (one for one in suites if one.name in asked):
        results = asked[suite.name]["results"]
        lines = [
            {
                "id": result["id"],
                "cluster": (suite.clusters or {}).get(result["id"], result["id"]),
                "completion": result["completion"],
                "correct": result["correct"],
            }
            for result in results
        ]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        correct = sum(result["correct"] for result in results)
        digest = workspace.artifacts.put_text(text)
        kept.append(Evaluation(suite.name, suite.kind, hashes[suite.name], correct, len(results), digest))
    return kept
