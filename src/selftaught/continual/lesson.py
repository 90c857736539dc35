"""A lesson in a workspace: check HEAD, teach, ask everything, judge, record; promote or not."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from selftaught._version import __version__
from selftaught.config import METHOD_LABELS, LearnConfig
from selftaught.continual.jobs import ADAPTER_FOLDER, MODEL_FOLDER, Job, Suite, Watch, run_jobs
from selftaught.continual.live import LIVE_FILE, LiveFile
from selftaught.continual.suites import all_suites, items_hash, kept_results, lift_rows
from selftaught.continual.verdict import Status, check_override, decide
from selftaught.continual.workspace import Workspace
from selftaught.errors import ArtifactError, ConfigError
from selftaught.evaluation.scorers import check_scorers
from selftaught.files import discard, read_json, verify_directory, write_json
from selftaught.ledger.gate import Comparison, judge
from selftaught.ledger.records import Skill, Version
from selftaught.ledger.store import now
from selftaught.types import Example

REQUEST_FILE = "request.json"
TRAINING_FIELDS = (
    "label",
    "steps",
    "seconds",
    "tokens",
    "processes",
    "peak_memory_gib",
    "curve",
    "loss",
    "lift",
    "stopped",
)


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


@dataclass(frozen=True)
class _Plan:
    """What is taught to what, and what is asked.

    Attributes:
        workspace: where.
        head: the version that is taught.
        skill: what it is taught.
        rows: the skill's, of all splits.
        config: how it is taught.
        suites: everything that is asked.
        hashes: of each suite's items, by its name.
    """

    workspace: Workspace
    head: Version
    skill: Skill
    rows: tuple[Example, ...]
    config: LearnConfig
    suites: tuple[Suite, ...]
    hashes: Mapping[str, str]


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
    check_override(override, reason)
    if not config.teaches:
        raise ConfigError(f"method: {METHOD_LABELS[config.method]} teaches nothing, so there is no version to record")
    with workspace.writing():
        plan = _planned(workspace, skill, config)
        _check_names(plan, override)
        if (done := _recorded(plan)) is not None:
            return done
        folder = _run_folder(plan)
        about = {"skill": skill, "head": plan.head.name, "label": METHOD_LABELS[plan.config.method]}
        watch = LiveFile(folder / LIVE_FILE, about, watch)
        lift = _check_head(plan, folder, watch, processes)
        record = _taught(plan, folder, watch, processes) | {"lift": lift}
        verdict = _judged(plan, record["suites"])
        status, why = decide(verdict, workspace.config.gate.on_inconclusive, override, reason)
        lesson = _record(plan, record, folder, verdict, status, why)
        with contextlib.suppress(ArtifactError):
            discard(folder)
    return lesson


def _planned(workspace: Workspace, skill: str, config: LearnConfig) -> _Plan:
    ledger, learned = workspace.ledger, workspace.ledger.skill(skill)
    suites = tuple(all_suites(workspace))
    check_scorers([row for suite in suites for row in suite.examples])  # before hours of work, not after
    hashes = {suite.name: items_hash(suite, config.dtype) for suite in suites}
    return _Plan(workspace, ledger.head(), learned, workspace.rows(learned), config, suites, hashes)


def _check_names(plan: _Plan, override: Sequence[str]) -> None:
    """Misspelt names, too, are found before hours of work."""
    for where, names in (("gate.tolerances", plan.workspace.config.gate.tolerances), ("--override", override)):
        unknown = [name for name in names if name not in plan.hashes]
        if unknown:
            raise ConfigError(f"{where}: {unknown[0]} is no skill or probe family; known are {', '.join(plan.hashes)}")


# ---------------------------------------------------------------------------------------- the work


def _request(plan: _Plan, head: int | None) -> dict[str, Any]:
    return {
        "head": head,
        "skill": plan.skill.data_hash,
        "config": plan.config.model_dump(mode="json"),
        "suites": plan.hashes,
        "selftaught": __version__,
    }


def _run_folder(plan: _Plan) -> Path:
    """One lesson, one folder: asked for again after an interruption, it goes on in it."""
    request = _request(plan, plan.head.number)
    key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:16]
    folder = plan.workspace.runs / key
    if not (folder / REQUEST_FILE).is_file():
        versions = len(plan.workspace.ledger.versions())
        write_json(folder / REQUEST_FILE, {**request, "name": plan.skill.name, "versions": versions})
    return folder


def _recorded(plan: _Plan) -> Lesson | None:
    """The very lesson that is asked for, if it was killed when it was recorded already: it is not taught twice.

    Its folder is still there, and a version that was recorded since the folder was made names it.
    """
    found, ledger = None, plan.workspace.ledger
    for path in sorted(plan.workspace.runs.glob(f"[!.]*/{REQUEST_FILE}")):
        asked = read_json(path)
        since = ledger.versions()[asked.get("versions", 0) :]
        for version in (one for one in since if one.training.get("run") == path.parent.name):
            discard(path.parent)
            status = ledger.status(version)
            in_force = plan.head.number == (version.number if status == "promoted" else version.parent)
            same = _request(plan, version.parent).items() <= asked.items()
            if same and in_force and status in get_args(Status):
                reason = [event.reason for event in ledger.events() if event.version == version.number][-1]
                found = Lesson(version, cast(Status, status), ledger.verdict(version) or {}, reason)
    return found


def _check_head(plan: _Plan, folder: Path, watch: Watch, processes: int) -> dict[str, Any] | None:
    """HEAD's answers to what it has not been asked yet, and whether it can use the demonstrations (the lift).

    SFT does without the lift.
    """
    ledger, distils = plan.workspace.ledger, plan.config.distils
    known = {(one.suite, one.items_hash) for one in ledger.evaluations(plan.head)}
    missing = tuple(suite for suite in plan.suites if (suite.name, plan.hashes[suite.name]) not in known)
    if not missing and not distils:
        return None
    job = Job(
        name="head",
        label=f"HEAD ({plan.head.name})",
        model=str(plan.workspace.model_folder(plan.head)),
        config=None,
        examples=lift_rows(plan.rows),
        suites=missing,
        lift_config=plan.config if distils else None,
        dtype=plan.config.dtype,
    )
    (record,) = run_jobs([(job, folder / "head")], watch, processes)
    ledger.add_evaluations(plan.head, kept_results(plan.workspace, missing, record["suites"], plan.hashes))
    lift: dict[str, Any] | None = record["lift"]
    return lift


def _taught(plan: _Plan, folder: Path, watch: Watch, processes: int) -> dict[str, Any]:
    """The record of the training and of all that was asked after it."""
    workspace = plan.workspace
    job = Job(
        name="lesson",
        label=METHOD_LABELS[plan.config.method],
        model=str(workspace.model_folder(plan.head)),
        config=plan.config,
        examples=plan.rows,
        suites=plan.suites,
        origin=str(workspace.model_folder(workspace.ledger.version("v0"))),
        rehearse=_rehearsed(plan),
    )
    return run_jobs([(job, folder / "lesson")], watch, processes)[0]


def _rehearsed(plan: _Plan) -> tuple[Example, ...]:
    """The taught rows of every skill that HEAD has learned, but for those that it is to answer otherwise now."""
    ledger = plan.workspace.ledger
    learned = [version.skill for version in reversed(ledger.lineage(plan.head)) if version.skill]
    names = [name for name in dict.fromkeys(learned) if name != plan.skill.name]
    skills = [plan.workspace.rows(ledger.skill(name)) for name in names]
    taught = {row.prompt for row in plan.rows}
    return tuple(row for rows in skills for row in rows if row.split == "train" and row.prompt not in taught)


# ------------------------------------------------------------------------------------- the judgement


def _judged(plan: _Plan, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The gate's verdict on the candidate against HEAD."""
    workspace, gate = plan.workspace, plan.workspace.config.gate
    learned = {version.skill for version in workspace.ledger.lineage(plan.head)} | {plan.skill.name}
    before = {(one.suite, one.items_hash): one for one in workspace.ledger.evaluations(plan.head)}
    comparisons = []
    for suite in plan.suites:
        if suite.kind == "skill" and suite.name not in learned:
            continue  # registered, but not taught yet: measured, and nothing to keep
        old = workspace.results(before[suite.name, plan.hashes[suite.name]])
        comparisons.append(
            Comparison(
                name=suite.name,
                kind="new" if suite.name == plan.skill.name else suite.kind,
                before={item["id"]: item["correct"] for item in old},
                after={item["id"]: item["correct"] for item in asked[suite.name]["results"]},
                clusters={item["id"]: item["cluster"] for item in old},
                tolerance=gate.tolerance_of(suite.name),
            )
        )
    verdict = judge(comparisons, gate.confidence)
    return {**verdict.as_dict(), "policy": gate.model_dump(mode="json")}


def _record(
    plan: _Plan, record: Mapping[str, Any], folder: Path, verdict: dict[str, Any], status: Status, why: str
) -> Lesson:
    """Artifacts first, then one transaction."""
    artifacts, model, adapter = (
        plan.workspace.artifacts,
        folder / "lesson" / MODEL_FOLDER,
        folder / "lesson" / ADAPTER_FOLDER,
    )
    for place in (model, *([adapter] if adapter.is_dir() else [])):  # what is recorded is what was measured
        verify_directory(place, f"delete {folder} and teach the skill again")
    version = Version(
        number=-1,  # the ledger's to give
        parent=plan.head.number,
        skill=plan.skill.name,
        created=now(),
        method=record["method"],
        config=record["config"],
        seed=record["config"]["seed"],
        data_hash=plan.skill.data_hash,
        code_version=__version__,
        model_artifact=artifacts.put_folder(model),
        adapter_artifact=artifacts.put_folder(adapter) if adapter.is_dir() else None,
        drift_nats=record["drift_nats"],
        training={**{field: record[field] for field in TRAINING_FIELDS}, "run": folder.name},
    )
    evaluations = kept_results(plan.workspace, plan.suites, record["suites"], plan.hashes)
    version = plan.workspace.ledger.add_version(version, evaluations, verdict, status, why)
    return Lesson(version, status, verdict, why)
