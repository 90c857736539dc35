"""A lesson in a workspace: measure HEAD where needed, teach, measure everything, judge, record; promote or not."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from selftaught._version import __version__
from selftaught.config import LearnConfig
from selftaught.continual.jobs import (
    ADAPTER_FOLDER,
    MODEL_FOLDER,
    Job,
    Suite,
    Watch,
    run_jobs,
)
from selftaught.continual.suites import all_suites, items_hash, kept_results, lift_rows
from selftaught.continual.workspace import Workspace
from selftaught.errors import ArtifactError, ConfigError
from selftaught.files import discard, read_json, verify_directory, write_json
from selftaught.ledger.gate import Comparison, judge
from selftaught.ledger.records import Skill, Version
from selftaught.ledger.store import now
from selftaught.types import Example

Status = Literal["promoted", "rejected", "inconclusive"]
REQUEST_FILE = "request.json"
TRAINING_FIELDS = ("label", "steps", "seconds", "tokens", "processes", "peak_memory_gib", "curve", "loss", "lift")


@dataclass(frozen=True)
class Lesson:
    """What a lesson came to.

    Attributes:
        version: what was taught, now in the ledger.
        status: "promoted", "rejected" or "inconclusive".
        verdict: the gate's: {"outcome", "sentence", "checks", "policy"}.
        reason: why the status is what it is.
    """

    version: Version
    status: Status
    verdict: dict[str, Any]
    reason: str


def teach(
    workspace: Workspace,
    skill: str,
    config: LearnConfig | None = None,
    override: Sequence[str] = (),
    reason: str = "",
    watch: Watch = lambda event: None,
    processes: int = 0,
) -> Lesson:
    """Teaches HEAD a skill and records the result, promoted or not.

    An interrupted lesson goes on where it was when the same one is asked for again.

    Args:
        workspace: where.
        skill: a registered one.
        config: how; None takes the workspace's own.
        override: names of checks whose failure shall not stop the promotion.
        reason: why not; needed with `override`, and recorded.
        watch: told what happens.
        processes: how many train it together; 0 is one for each core that a batch has rows for.

    Returns:
        The lesson's outcome.

    Raises:
        SelftaughtError: with one line that says what is wrong and how to mend it.
    """
    config = config or workspace.config.learn_config({}, ())
    from selftaught.evaluation.scorers import check_scorers

    check_override(override, reason)
    with workspace.writing():
        head = workspace.ledger.head()
        learned = workspace.ledger.skill(skill)
        suites = all_suites(workspace)
        _check_names(workspace, suites, override)
        rows = workspace.rows(learned)
        if (done := _recorded(workspace, head, learned, config, suites)) is not None:
            return done
        check_scorers([row for suite in suites for row in suite.examples])
        folder = _run_folder(workspace, head, learned, config, suites)
        lift = _check_head(workspace, head, rows, config, suites, folder, watch, processes)
        record = _taught(workspace, head, rows, config, suites, folder, watch, processes) | {"lift": lift}
        verdict = _judged(workspace, head, skill, config, suites, record["suites"])
        status, why = decide(verdict, workspace.config.gate.on_inconclusive, override, reason)
        lesson = _record(workspace, head, learned, record, folder, suites, verdict, status, why)
        with contextlib.suppress(ArtifactError):
            discard(folder)
    return lesson


# ------------------------------------------------------------------------------------ what is asked


def _check_names(workspace: Workspace, suites: Sequence[Suite], override: Sequence[str]) -> None:
    """Misspelt names are found before hours of work."""
    known = [suite.name for suite in suites]
    for where, names in (("gate.tolerances", workspace.config.gate.tolerances), ("--override", override)):
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ConfigError(f"{where}: {unknown[0]} is no skill or probe family; known are {', '.join(known)}")


def check_override(override: Sequence[str], reason: str) -> None:
    """An override needs a reason, and a reason an override.

    Raises:
        ConfigError: one is there without the other.
    """
    if override and not reason.strip():
        raise ConfigError("--override: give a --reason too; it is recorded")
    if reason.strip() and not override:
        raise ConfigError("--reason: name what it excuses with --override")


# ---------------------------------------------------------------------------------------- the work


def _request(head: int | None, skill: Skill, config: LearnConfig, suites: Sequence[Suite]) -> dict[str, Any]:
    return {
        "head": head,
        "skill": skill.data_hash,
        "config": config.model_dump(mode="json"),
        "suites": {suite.name: items_hash(suite, config.dtype) for suite in suites},
        "selftaught": __version__,
    }


def _run_folder(
    workspace: Workspace, head: Version, skill: Skill, config: LearnConfig, suites: Sequence[Suite]
) -> Path:
    """One lesson, one folder: asked for again after an interruption, it goes on in it."""
    request = _request(head.number, skill, config, suites)
    key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:16]
    folder = workspace.runs / key
    if not (folder / REQUEST_FILE).is_file():
        write_json(folder / REQUEST_FILE, {**request, "name": skill.name, "versions": len(workspace.ledger.versions())})
    return folder


def _recorded(
    workspace: Workspace, head: Version, skill: Skill, config: LearnConfig, suites: Sequence[Suite]
) -> Lesson | None:
    """The very lesson that is asked for, if it was killed when it was recorded already: it is not taught twice.

    Its folder is still there, and a version that was recorded since the folder was made names it.
    """
    found = None
    for path in sorted(workspace.runs.glob(f"[!.]*/{REQUEST_FILE}")):
        asked = read_json(path)
        since = workspace.ledger.versions()[asked.get("versions", 0) :]
        for version in (one for one in since if one.training.get("run") == path.parent.name):
            discard(path.parent)
            status = workspace.ledger.status(version)
            in_force = version.number == head.number if status == "promoted" else version.parent == head.number
            same = _request(version.parent, skill, config, suites).items() <= asked.items()
            if same and in_force and status in get_args(Status):
                reason = [event.reason for event in workspace.ledger.events() if event.version == version.number][-1]
                found = Lesson(version, cast(Status, status), workspace.ledger.verdict(version) or {}, reason)
    return found


def _check_head(
    workspace: Workspace,
    head: Version,
    rows: Sequence[Example],
    config: LearnConfig,
    suites: Sequence[Suite],
    folder: Path,
    watch: Watch,
    processes: int,
) -> dict[str, Any]:
    """Whether HEAD can use the demonstrations (the lift), and its answers to what it has not been asked yet."""
    known = {(one.suite, one.items_hash) for one in workspace.ledger.evaluations(head)}
    missing = tuple(suite for suite in suites if (suite.name, items_hash(suite, config.dtype)) not in known)
    job = Job(
        name="head",
        label=f"HEAD ({head.name})",
        model=str(workspace.model_folder(head)),
        config=None,
        examples=lift_rows(rows),
        suites=missing,
        lift_config=config,
    )
    (record,) = run_jobs([(job, folder / "head")], watch, processes)
    asked = tuple(suite for suite in missing if suite.name in record["suites"])  # by now some may have been recorded
    workspace.ledger.add_evaluations(head, kept_results(workspace, asked, record["suites"], config.dtype))
    return dict(record["lift"])


def _taught(
    workspace: Workspace,
    head: Version,
    rows: tuple[Example, ...],
    config: LearnConfig,
    suites: Sequence[Suite],
    folder: Path,
    watch: Watch,
    processes: int,
) -> dict[str, Any]:
    """The record of the training and of all that was asked after it."""
    base = workspace.ledger.version("v0")
    job = Job(
        name="lesson",
        label=config.method.upper(),
        model=str(workspace.model_folder(head)),
        config=config,
        examples=rows,
        suites=tuple(suites),
        drift_base=str(workspace.model_folder(base)),
        rehearse=_rehearsed(workspace, head),
        merge=True,
    )
    return run_jobs([(job, folder / "lesson")], watch, processes)[0]


def _rehearsed(workspace: Workspace, head: Version) -> tuple[Example, ...]:
    """The taught rows of every skill that HEAD has learned."""
    names = dict.fromkeys(version.skill for version in reversed(workspace.ledger.lineage(head)) if version.skill)
    rows = [workspace.rows(workspace.ledger.skill(name)) for name in names]
    return tuple(row for skill in rows for row in skill if row.split == "train")


# ------------------------------------------------------------------------------------- the judgement


def _judged(
    workspace: Workspace,
    head: Version,
    skill: str,
    config: LearnConfig,
    suites: Sequence[Suite],
    asked: Mapping[str, Any],
) -> dict[str, Any]:
    """The gate's verdict on the candidate against HEAD."""
    gate = workspace.config.gate
    learned = {version.skill for version in workspace.ledger.lineage(head)}
    before = {(one.suite, one.items_hash): one for one in workspace.ledger.evaluations(head)}
    comparisons = []
    for suite in suites:
        if suite.kind == "skill" and suite.name != skill and suite.name not in learned:
            continue  # registered, but not taught yet: measured, and nothing to keep
        old = workspace.results(before[suite.name, items_hash(suite, config.dtype)])
        comparisons.append(
            Comparison(
                name=suite.name,
                kind="new" if suite.name == skill else suite.kind,
                before={item["id"]: item["correct"] for item in old},
                after={item["id"]: item["correct"] for item in asked[suite.name]["results"]},
                clusters={item["id"]: item["cluster"] for item in old},
                tolerance=gate.tolerance_of(suite.name),
            )
        )
    verdict = judge(comparisons, gate.confidence)
    return {**verdict.as_dict(), "policy": gate.model_dump(mode="json")}


def decide(
    verdict: Mapping[str, Any], on_inconclusive: str, override: Sequence[str] = (), reason: str = ""
) -> tuple[Status, str]:
    """What becomes of a version, and why.

    Args:
        verdict: the gate's.
        on_inconclusive: "hold", "promote" or "reject".
        override: names of checks whose failure is excused.
        reason: why they are.
    """
    failed = failed_checks(verdict)
    excused = sorted(failed.keys() & set(override))
    against = [outcome for name, outcome in failed.items() if name not in excused]
    status: Status = verdict["outcome"]
    why = f"{verdict['sentence']}"
    if excused:
        why = f"overridden for {', '.join(excused)}: {reason}; the gate said {why}"
        decided = any(outcome != "undecided" for outcome in against)
        status = "rejected" if decided else "inconclusive" if against else "promoted"
    if status != "inconclusive" or on_inconclusive == "hold":
        return status, why
    return "promoted" if on_inconclusive == "promote" else "rejected", f"{why} (on_inconclusive = {on_inconclusive})"


def failed_checks(verdict: Mapping[str, Any]) -> dict[str, str]:
    """The checks that a version did not pass, and how."""
    return {one["name"]: one["outcome"] for one in verdict["checks"] if one["outcome"] not in ("improved", "kept")}


def _record(
    workspace: Workspace,
    head: Version,
    skill: Skill,
    record: Mapping[str, Any],
    folder: Path,
    suites: Sequence[Suite],
    verdict: dict[str, Any],
    status: Status,
    why: str,
) -> Lesson:
    """Artifacts first, then one transaction."""
    lesson = folder / "lesson"
    adapter = lesson / ADAPTER_FOLDER
    for place in (lesson / MODEL_FOLDER, adapter):  # what is recorded is what was measured
        if place == lesson / MODEL_FOLDER or place.is_dir():
            verify_directory(place, f"delete {folder} and teach the skill again")
    version = Version(
        number=-1,  # the ledger's to give
        parent=head.number,
        skill=skill.name,
        created=now(),
        method=record["method"],
        config=record["config"],
        seed=record["config"]["seed"],
        data_hash=skill.data_hash,
        code_version=__version__,
        model_artifact=workspace.artifacts.put_folder(lesson / MODEL_FOLDER),
        adapter_artifact=workspace.artifacts.put_folder(adapter) if adapter.is_dir() else None,
        drift_nats=record["drift_nats"],
        training={**{field: record[field] for field in TRAINING_FIELDS}, "run": folder.name},
    )
    evaluations = kept_results(workspace, suites, record["suites"], record["config"]["dtype"])
    version = workspace.ledger.add_version(version, evaluations, verdict, status, why)
    return Lesson(version, status, verdict, why)


def promote(workspace: Workspace, name: str, override: Sequence[str], reason: str) -> Version:
    """Lets a version in that the gate held or rejected, by name and with a reason; or one again that was rolled back.

    Args:
        workspace: where.
        name: of the version.
        override: names of all checks that it failed.
        reason: why they are excused; recorded.

    Raises:
        ConfigError: it is promoted already, a failed check is not named, or HEAD is no longer its parent.
        ArtifactError: its weights are gone or damaged.
    """
    check_override(override, reason)
    with workspace.writing():
        version = workspace.ledger.version(name)
        verdict = workspace.ledger.verdict(version)
        status = workspace.ledger.status(version)
        if verdict is None or status not in ("rejected", "inconclusive", "rolled back"):
            raise ConfigError(f"{version.name}: is {status}, so there is nothing to promote")
        why = "promoted again after it was rolled back"
        if status != "rolled back":
            decided, why = decide(verdict, "hold", override, reason)
            missing = [name for name in failed_checks(verdict) if name not in override]
            if decided != "promoted":
                raise ConfigError(f"{version.name}: failed {', '.join(missing)}; name each with --override")
        workspace.model_folder(version)
        workspace.ledger.promote(version, why)
    return version
