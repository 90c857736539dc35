"""What the page shows, as plain dictionaries: pure functions of a workspace, without a server and without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selftaught.continual import views
from selftaught.continual.live import LIVE_FILE, is_running
from selftaught.continual.workspace import Workspace
from selftaught.errors import ArtifactError, ConfigError
from selftaught.files import read_json
from selftaught.interactions import Interactions
from selftaught.ledger.records import Evaluation, Version
from selftaught.serve.page.lanes import places
from selftaught.statistics import Share

CHECK_FIELDS = ("name", "kind", "total", "before", "after", "change", "low", "high", "gained", "lost", "outcome")
CURVE_POINTS = 240  # of the loss; a screen has no more
SHOWN_FEEDBACK = 50  # the oldest; the others are counted


def state(workspace: Workspace, interactions: Interactions | None) -> dict[str, Any]:
    """All that the page shows at once; what flipped is asked for version by version (`flips`).

    Args:
        workspace: an open one.
        interactions: its store of conversations; None where nothing was kept yet.
    """
    with workspace.ledger.snapshot():  # a lesson may be recorded meanwhile
        found = {
            "workspace": {"name": workspace.root.resolve().name, "model": workspace.config.model},
            "head": workspace.ledger.head().name,
            "skills": [skill.name for skill in workspace.ledger.skills()],
            "versions": versions(workspace),
            "suites": suites(workspace),
        }
    approve = workspace.config.interactions.approve
    return {**found, "lessons": lessons(workspace), "feedback": feedback(interactions), "approve": approve}


def versions(workspace: Workspace) -> list[dict[str, Any]]:
    """All versions, the newest first: where each comes from, what became of it, and what the gate said."""
    ledger, logged = workspace.ledger, views.logged(workspace)
    head = ledger.head()
    in_force = {version.number for version in ledger.lineage(head)}
    newest_first = list(reversed(ledger.versions()))
    drawn = places([(version.number, version.parent) for version in newest_first], in_force)
    return [
        {
            **{name: row[name] for name in row if name != "accuracy"},
            "label": version.training.get("label") or version.method,
            "is_head": version.number == head.number,
            "in_force": version.number in in_force,
            "place": vars(place),
            "stopped": version.training.get("stopped"),
            "verdict": _verdict(workspace, version),
        }
        for row, version, place in zip(logged["versions"], newest_first, drawn, strict=True)
    ]


def _verdict(workspace: Workspace, version: Version) -> dict[str, Any] | None:
    found = workspace.ledger.verdict(version)
    if found is None:
        return None
    checks = [{name: check.get(name) for name in CHECK_FIELDS} for check in found["checks"]]
    return {"outcome": found["outcome"], "sentence": found["sentence"], "checks": checks}


def suites(workspace: Workspace) -> list[dict[str, Any]]:
    """Every skill and probe family, and how each version answered it.

    Returns:
        {"suite", "kind", "cells"} each, the skills first; a cell for each version, the oldest first: None where it was
        not asked, else its share, with "taught" where the version was taught that very skill.
    """
    ledger = workspace.ledger
    every = ledger.versions()
    asked = [{one.suite: one for one in ledger.evaluations(version)} for version in every]  # the last form of each
    kinds = {one.suite: one.kind for row in asked for one in row.values()}
    skills = [skill.name for skill in ledger.skills()]
    names = [*skills, *(name for name, kind in kinds.items() if kind == "probe")]
    return [
        {
            "suite": name,
            "kind": kinds.get(name, "skill"),
            "cells": [_cell(row.get(name), version.skill == name) for version, row in zip(every, asked, strict=True)],
        }
        for name in names
    ]


def _cell(one: Evaluation | None, taught: bool) -> dict[str, Any] | None:
    return None if one is None else {**Share(one.correct, one.total).as_dict(), "taught": taught}


def flips(workspace: Workspace, name: str) -> dict[str, Any]:
    """What a version answers otherwise than the one it was taught from: of each check, the items that flipped.

    Returns:
        {"before", "after", "suites"}: names of the two versions, and of each suite "suite", "gained", "lost" and
        "flips" ({"id", "question", "gained", "before", "after"}), the losses first.

    Raises:
        ConfigError: there is no such version, or it is the base.
        ArtifactError: answers are damaged.
    """
    version = workspace.ledger.version(name)
    if version.parent is None:
        raise ConfigError(f"{version.name}: is the base, which was taught from nothing")
    found = views.difference(workspace, f"v{version.parent}", version.name)
    kept = ("suite", "gained", "lost")
    return {
        "before": found["before"],
        "after": found["after"],
        "suites": [
            {**{key: one[key] for key in kept}, "flips": sorted(one["flips"], key=lambda flip: bool(flip["gained"]))}
            for one in found["suites"]
            if one["flips"]
        ],
    }


def lessons(workspace: Workspace) -> list[dict[str, Any]]:
    """Lessons under way and interrupted ones, the newest first; see `continual.live`."""
    found = []
    for path in sorted(workspace.runs.glob(f"[!.]*/{LIVE_FILE}")):
        try:
            told = read_json(path)
        except ArtifactError:  # it has just been recorded
            continue
        if isinstance(told, dict):
            found.append({**told, "points": _thinned(told.get("points") or []), "running": is_running(told)})
    return sorted(found, key=lambda told: (told["running"], str(told.get("updated"))), reverse=True)


def _thinned(points: Sequence[Any]) -> list[Any]:
    """Evenly fewer, the first and the last among them."""
    if len(points) <= CURVE_POINTS:
        return list(points)
    return [points[round(place * (len(points) - 1) / (CURVE_POINTS - 1))] for place in range(CURVE_POINTS)]


def feedback(interactions: Interactions | None) -> dict[str, Any] | None:
    """What users said and nobody has looked at yet, the oldest first; None where no conversation was ever kept."""
    if interactions is None:
        return None
    pending = interactions.feedback("pending")
    return {
        "pending": len(pending),
        "shown": [
            {
                "id": said.id,
                "created": said.created,
                "kind": said.kind,
                "text": said.text,
                "key": said.key,
                "version": about.version,
                "messages": [{"role": turn.role, "content": turn.content} for turn in about.messages],
                "completion": about.completion,
            }
            for said, about in pending[:SHOWN_FEEDBACK]
        ],
    }


def fingerprint(workspace: Workspace, interactions: Path) -> str:
    """Changes whenever what `state` tells may have changed, and costs next to nothing."""
    ledger = workspace.ledger.path
    files = [ledger, interactions, *sorted(workspace.runs.glob(f"[!.]*/{LIVE_FILE}"))]
    logs = [path.with_name(f"{path.name}-wal") for path in (ledger, interactions)]  # an empty one comes and goes
    seen = [(path.name, *_seen(path)) for path in (*files, *logs) if _seen(path)[0]]
    running = [told["running"] for told in lessons(workspace)]
    return repr((seen, running))


def _seen(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns
