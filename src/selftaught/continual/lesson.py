"""A lesson in a workspace: measure HEAD where needed, teach, measure everything, judge, record; promote or not."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from selftaught._version import __version__
from selftaught.config import LearnConfig
from selftaught.continual.jobs import (
    ADAPTER_FOLDER,
    MODEL_FOLDER,
    Job,
    Suite,
    Watch,
    probe_suites,
    run_jobs,
)
from selftaught.continual.workspace import Workspace
from selftaught.data import data_hash
from selftaught.errors import ArtifactError, ConfigError
from selftaught.files import discard, read_json, verify_directory, write_json
from selftaught.ledger.gate import Comparison, judge
from selftaught.ledger.records import Evaluation, Skill, Version
from selftaught.ledger.store import now
from selftaught.types import Example

Status = Literal["promoted", "rejected", "inconclusive"]
REQUEST_FILE = "request.json"
TRAINING_FIELDS = ("label", "steps", "seconds", "tokens", "processes", "peak_memory_gib", "curve", "loss")


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
    check_override(override, reason)
    with workspace.writing():
        head = workspace.ledger.head()
        learned = workspace.ledger.skill(skill)
        suites = all_suites(workspace)
        _check_names(workspace, suites, override)
        rows = workspace.rows(learned)
        if (done := _recorded(workspace, head, learned, config, suites)) is not None:
            return done
        folder = _run_folder(workspace, head, learned, config, suites)
        _measure_head(workspace, head, suites, folder, watch, processes)
        record = _taught(workspace, head, rows, config, suites, folder, watch, processes)
        verdict = _judged(workspace, head, skill, suites, record["suites"])
        status, why = decide(verdict, workspace.config.gate.on_inconclusive, override, reason)
        lesson = _record(workspace, head, learned, record, folder, suites, verdict, status, why)
        with contextlib.suppress(ArtifactError):
            discard(folder)
    return lesson


# ------------------------------------------------------------------------------------ what is asked


def all_suites(workspace: Workspace) -> list[Suite]:
    """Every registered skill's test rows, and the probes that the gate asks."""
    suites = []
    for skill in workspace.ledger.skills():
        asked = tuple(row for row in workspace.rows(skill) if row.split == "test")
        suites.append(Suite(skill.name, "skill", asked, skill.max_new_tokens))
    wanted = workspace.config.gate.probes
    return suites + (list(probe_suites(bank=wanted == "bank")) if wanted != "none" else [])


def items_hash(suite: Suite) -> str:
    """Results are comparable where this is the same: the items, their scoring, the length of answers."""
    return hashlib.sha256(f"{data_hash(suite.examples)}/{suite.max_new_tokens}".encode()).hexdigest()


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
        "suites": {suite.name: items_hash(suite) for suite in suites},
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
        write_json(
            folder / REQUEST_FILE, {**request, "name": skill.name, "versions": len(workspace.ledger.versions())}
        )
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
            if same and in_force and (status == "promoted" or status == "rejected" or status == "inconclusive"):
                reason = [event.reason for event in workspace.ledger.events() if event.version == version.number][-1]
                found = Lesson(version, status, workspace.ledger.verdict(version) or {}, reason)
    return found


def _measure_head(
    workspace: Workspace, head: Version, suites: Sequence[Suite], folder: Path, watch: Watch, processes: int
) -> None:
    """HEAD is asked what it has not been asked: a skill registered since, or other probes."""
    known = {(one.suite, one.items_hash) for one in workspace.ledger.evaluations(head)}
    missing = tuple(suite for suite in suites if (suite.name, items_hash(suite)) not in known)
    if not missing:
        return
    model = str(workspace.model_folder(head))
    key = hashlib.sha256("".join(map(items_hash, missing)).encode()).hexdigest()[:8]
    job = Job("head", f"HEAD ({head.name})", model, None, suites=missing)
    (record,) = run_jobs([(job, folder / f"head-{key}")], watch, processes)
    workspace.ledger.add_evaluations(head, kept_results(workspace, missing, record["suites"]))


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


def kept_results(workspace: Workspace, suites: Sequence[Suite], asked: Mapping[str, Any]) -> list[Evaluation]:
    """Answers become artifacts; what the ledger records of them."""
    kept = []
    for suite in suites:
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
        kept.append(Evaluation(suite.name, suite.kind, items_hash(suite), correct, len(results), digest))
    return kept


# ------------------------------------------------------------------------------------- the judgement


def _judged(
    workspace: Workspace, head: Version, skill: str, suites: Sequence[Suite], asked: Mapping[str, Any]
) -> dict[str, Any]:
    """The gate's verdict on the candidate against HEAD."""
    gate = workspace.config.gate
    learned = {version.skill for version in workspace.ledger.lineage(head)}
    before = {(one.suite, one.items_hash): one for one in workspace.ledger.evaluations(head)}
    comparisons = []
    for suite in suites:
        if suite.kind == "skill" and suite.name != skill and suite.name not in learned:
            continue  # registered, but not taught yet: measured, and nothing to keep
        old = workspace.results(before[suite.name, items_hash(suite)])
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
    failed = {check["name"] for check in verdict["checks"] if check["outcome"] not in ("improved", "kept")}
    if failed and failed <= set(override):
        return "promoted", f"overridden for {', '.join(sorted(failed))}: {reason}; the gate said {verdict['sentence']}"
    if verdict["outcome"] != "inconclusive" or on_inconclusive == "hold":
        return verdict["outcome"], verdict["sentence"]
    status: Status = "promoted" if on_inconclusive == "promote" else "rejected"
    return status, f"{verdict['sentence']} (on_inconclusive = {on_inconclusive})"


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
    evaluations = kept_results(workspace, suites, record["suites"])
    version = workspace.ledger.add_version(version, evaluations, verdict, status, why)
    return Lesson(version, status, verdict, why)


def promote(workspace: Workspace, name: str, override: Sequence[str], reason: str) -> Version:
    """Lets a version in that the gate held or rejected, by name and with a reason.

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
        if verdict is None or status not in ("rejected", "inconclusive"):
            raise ConfigError(
                f"{version.name}: is {status}; only a rejected or an inconclusive version can be promoted"
            )
        status, why = decide(verdict, "hold", override, reason)
        if status != "promoted":
            failed = [c["name"] for c in verdict["checks"] if c["outcome"] not in ("improved", "kept")]
            missing = [name for name in failed if name not in override]
            raise ConfigError(f"{version.name}: also failed {', '.join(missing)}; name each with --override")
        workspace.model_folder(version)
        workspace.ledger.promote(version, why)
    return version
