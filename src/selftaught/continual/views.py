"""What a ledger shows: plain dictionaries, for the terminal and for programs."""

from __future__ import annotations

from typing import Any

from selftaught.continual.workspace import Workspace
from selftaught.errors import ConfigError
from selftaught.ledger.records import Evaluation, Version
from selftaught.statistics import Share, mcnemar_p


def log(workspace: Workspace) -> dict[str, Any]:
    """All versions, the newest first, and which of them is HEAD."""
    ledger = workspace.ledger
    with ledger.snapshot():  # a lesson may be recorded meanwhile
        return logged(workspace)


def logged(workspace: Workspace) -> dict[str, Any]:
    """The same, for whoever reads more of the same moment (`Ledger.snapshot`)."""
    ledger = workspace.ledger
    versions, events = ledger.versions(), [event for event in ledger.events() if event.kind != "collected"]
    return {
        "head": ledger.head().name,
        "skills": [skill.name for skill in ledger.skills()],
        "versions": [
            {
                "version": version.name,
                "parent": None if version.parent is None else f"v{version.parent}",
                "skill": version.skill,
                "method": version.method,
                "status": ledger.status(version),
                "weights": not workspace.is_collected(version),
                "created": version.created,
                "drift_nats": version.drift_nats,
                "accuracy": {name: share["value"] for name, share in _scores(workspace, version).items()},
                "reason": [event.reason for event in events if event.version == version.number][-1],
            }
            for version in reversed(versions)
        ],
    }


def shown(workspace: Workspace, name: str) -> dict[str, Any]:
    """All that is known of one version."""
    ledger = workspace.ledger
    version = ledger.version(name)
    return {
        **vars(version),
        "version": version.name,
        "status": ledger.status(version),
        "is_head": ledger.head().number == version.number,
        "lineage": [one.name for one in ledger.lineage(version)],
        "scores": _scores(workspace, version),
        "verdict": ledger.verdict(version),
        "events": [vars(event) for event in ledger.events() if event.version == version.number],
    }


def taught_documents(workspace: Workspace, name: str) -> list[dict[str, Any]]:
    """Which documents a version and those before it were taught, and what the version now knows of each.

    Returns:
        A row a document, in the order of the lessons: {"document", "digest", "version", "skill", "taught" (questions),
        "asked", "correct"}; of a skill's test questions, "correct" are those that `name` answers right.
    """
    ledger = workspace.ledger
    version = ledger.version(name)
    answered = {
        (one.suite, item["id"]): item["correct"]
        for one in ledger.evaluations(version)
        if one.kind == "skill"
        for item in workspace.results(one)
    }
    found = []
    for one in reversed(ledger.lineage(version)):
        if one.skill is None:
            continue
        skill = ledger.skill(one.skill)
        digests = {told["path"]: told["digest"] for told in skill.card.get("documents", [])}
        rows = workspace.rows(skill)
        for document in dict.fromkeys(row.source for row in rows if row.source):
            own = [row for row in rows if row.source == document and row.group != "neighbour"]
            marks = [answered[skill.name, row.id] for row in own if (skill.name, row.id) in answered]
            found.append(
                {
                    "document": document,
                    "digest": digests.get(document, ""),
                    "version": one.name,
                    "skill": skill.name,
                    "taught": sum(row.split == "train" for row in own),
                    "asked": len(marks),
                    "correct": sum(marks),
                }
            )
    return found


def difference(workspace: Workspace, first: str, second: str) -> dict[str, Any]:
    """What two versions answered differently.

    Raises:
        ConfigError: they have no suite in common.
    """
    ledger = workspace.ledger
    before, after = ledger.version(first), ledger.version(second)
    theirs = {(one.suite, one.items_hash): one for one in ledger.evaluations(after)}
    pairs = [
        (one, theirs[one.suite, one.items_hash])
        for one in ledger.evaluations(before)
        if (one.suite, one.items_hash) in theirs
    ]
    if not pairs:
        raise ConfigError(f"{before.name} and {after.name} have been asked nothing in common")
    suites = [_compared(workspace, old, new) for old, new in pairs]
    return {"before": before.name, "after": after.name, "suites": suites}


def _compared(workspace: Workspace, old: Evaluation, new: Evaluation) -> dict[str, Any]:
    """One suite: both scores, and every item that only one of the two has right, with both answers."""
    questions = _questions(workspace, old)
    after = {item["id"]: item for item in workspace.results(new)}
    flips = [
        {
            "id": item["id"],
            "question": questions.get(item["id"], ""),
            "gained": after[item["id"]]["correct"],
            "before": item["completion"],
            "after": after[item["id"]]["completion"],
        }
        for item in workspace.results(old)
        if item["correct"] != after[item["id"]]["correct"]
    ]
    gained = sum(flip["gained"] for flip in flips)
    return {
        "suite": old.suite,
        "kind": old.kind,
        "before": Share(old.correct, old.total).as_dict(),
        "after": Share(new.correct, new.total).as_dict(),
        "gained": gained,
        "lost": len(flips) - gained,
        "p": mcnemar_p(gained, len(flips) - gained),
        "flips": flips,
    }


def _questions(workspace: Workspace, evaluation: Evaluation) -> dict[str, str]:
    if evaluation.kind == "skill":
        rows = workspace.rows(workspace.ledger.skill(evaluation.suite))
    else:
        from selftaught.evaluation.probes import probe_bank

        rows = probe_bank(evaluation.suite).examples
    return {row.id: row.question for row in rows}


def _scores(workspace: Workspace, version: Version) -> dict[str, Any]:
    """By suite; of a suite that was asked in two forms, the last."""
    return {
        one.suite: {"kind": one.kind, **Share(one.correct, one.total).as_dict()}
        for one in workspace.ledger.evaluations(version)
    }
