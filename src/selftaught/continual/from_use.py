"""Learning from use: what people said of HEAD's answers becomes a skill, and is taught through the gate."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftaught.config import LearnConfig
from selftaught.continual.jobs import Event, Watch, run_jobs
from selftaught.continual.lesson import Lesson, teach
from selftaught.continual.registry import add_skill
from selftaught.continual.use_rows import (
    WAITING,
    Candidate,
    Prompt,
    Sorted,
    judged,
    lift_job,
    rows_to_ask,
    sort_feedback,
)
from selftaught.continual.workspace import Workspace
from selftaught.errors import ArtifactError, DataError
from selftaught.ledger.records import Skill

SOURCE = "use"  # of skills that were made here
LONGEST = 256  # tokens of an answer that is taught


@dataclass(frozen=True)
class FromUse:
    """What a look at the feedback came to.

    Attributes:
        lesson: the lesson; None if there was nothing to teach.
        skill: the skill that it taught.
        words: what was found, in a line.
    """

    lesson: Lesson | None
    skill: str | None
    words: str


def learn_from_use(
    workspace: Workspace,
    config: LearnConfig | None = None,
    watch: Watch = lambda event: None,
    processes: int = 0,
) -> FromUse:
    """Teaches HEAD what was said of its answers since the last lesson, if that is enough for a lesson.

    An interrupted lesson goes on where it was. Feedback is marked as learned once the version that learned it is HEAD,
    or HEAD descends from it; what the gate kept out is tried again together with what is new.

    Args:
        workspace: where.
        config: how it is taught; None takes the workspace's own.
        watch: told what happens.
        processes: how many teach; 0 is one a core.

    Raises:
        SelftaughtError: with one line that says what is wrong and how to mend it.
    """
    config = config or workspace.config.learn_config({}, ())
    settle(workspace)
    skill, words = _unfinished(workspace), "goes on with a lesson that was interrupted"
    if skill is None:
        skill, words = _made(workspace, config, watch, processes)
    if skill is None:
        return FromUse(None, None, f"nothing to teach: {words}")
    lesson = teach(workspace, skill.name, config, watch=watch, processes=processes)
    settle(workspace)
    return FromUse(lesson, skill.name, f"{skill.name}: {words}")


def settle(workspace: Workspace) -> None:
    """Forgets what is past its time, and marks as learned what HEAD has learned, however it came to be HEAD."""
    ledger = workspace.ledger
    with closing(workspace.interactions()) as store:
        with suppress(ArtifactError):  # another process is reading; the server, or the next look, will do
            store.expire()
        learned = {version.skill for version in ledger.lineage(ledger.head())}
        ids = {id for skill in skills_from_use(workspace) if skill.name in learned for id in skill.card["feedback"]}
        open_ones = [said.id for said, _ in store.feedback() if said.state != "learned"]
        store.set_state([id for id in open_ones if id in ids], "learned")


def skills_from_use(workspace: Workspace) -> list[Skill]:
    """The skills that were made of feedback, the oldest first."""
    return [skill for skill in workspace.ledger.skills() if skill.source == SOURCE and "feedback" in skill.card]


def _unfinished(workspace: Workspace) -> Skill | None:
    """The last such skill, if no lesson has come to an end with it yet."""
    made = skills_from_use(workspace)
    taught = {version.skill for version in workspace.ledger.versions()}
    return made[-1] if made and made[-1].name not in taught else None


def _made(workspace: Workspace, config: LearnConfig, watch: Watch, processes: int) -> tuple[Skill | None, str]:
    """A skill of the feedback, if there is enough that is new; and what became of the feedback, in words."""
    made, settings = skills_from_use(workspace), workspace.config.interactions
    with closing(workspace.interactions()) as store:
        found = sort_feedback(store.feedback(), settings, _asked(workspace))
    tried = {id for skill in made for id in skill.card["feedback"]}
    num_new = sum(not tried.issuperset(one.feedback) for one in found.chosen)
    if num_new < settings.least_rows:
        return None, _counted(found, num_new, settings.least_rows)
    head = workspace.model_folder(workspace.ledger.head())
    chosen = _lifted(workspace, _fitting(found, head, config), head, config, found, watch, processes)
    _reject(workspace, found)
    words = _counted(found, len(chosen), settings.least_rows)
    if len(chosen) < settings.least_rows:
        return None, words
    skills = [workspace.rows(skill) for skill in workspace.ledger.skills()]
    taught = {row.prompt for rows in skills for row in rows if row.split == "train"} | {
        one.row.prompt for one in chosen
    }
    asked = [row for row in rows_to_ask(chosen) if row.prompt not in taught]
    card = {
        "title": f"what was said of {len(chosen)} answers",
        "feedback": sorted(id for one in chosen for id in one.feedback),
        "keys": len({one.key for one in chosen}),
        "left_out": found.reasons(),
    }
    rows = [*(one.row for one in chosen), *asked]
    return add_skill(workspace, f"use-{len(made) + 1}", rows, SOURCE, card), words


def _asked(workspace: Workspace) -> Mapping[Prompt, str]:
    """Every prompt that the gate asks, and whose it is."""
    from selftaught.evaluation.probes import FAMILIES, probe_bank

    rows = {name: probe_bank(name).examples for name in FAMILIES}
    rows |= {skill.name: workspace.rows(skill) for skill in workspace.ledger.skills()}
    return {row.prompt: name for name, examples in rows.items() for row in examples if row.split != "train"}


def _fitting(found: Sorted, head: Path, config: LearnConfig) -> list[Candidate]:
    """The candidates that fit the model; one that does not would stop the whole lesson."""
    from selftaught.models.load import load_tokenizer, longest_input
    from selftaught.prompts import teacher_prompt

    tokenizer, room = load_tokenizer(head), longest_input(head) - 2 * LONGEST
    fitting = []
    for one in found.chosen:
        try:
            teacher_prompt(one.row, tokenizer, config.prompts, room)
            if len(tokenizer(one.row.demonstration or "")["input_ids"]) > LONGEST:
                raise DataError(f"row {one.row.id!r}: its answer has more than {LONGEST} tokens")
        except DataError as error:
            found.leave_out([one], f"is too long: {str(error).partition(': ')[2]}")
            continue
        fitting.append(one)
    return fitting


def _lifted(
    workspace: Workspace,
    candidates: list[Candidate],
    head: Path,
    config: LearnConfig,
    found: Sorted,
    watch: Watch,
    processes: int,
) -> list[Candidate]:
    """Those from which HEAD can learn something."""
    if not candidates:
        return []
    job = lift_job(candidates, str(head), config, answer_limit(candidates, head))
    workspace.runs.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=workspace.runs) as scratch:  # gc sweeps what a kill leaves
        (record,) = run_jobs([(job, Path(scratch))], watch, processes)
    return judged(candidates, record["suites"], found)


def answer_limit(candidates: list[Candidate], model: Path) -> int:
    """How long an answer of HEAD's may be, in tokens: half as long again as the longest text."""
    from selftaught.models.load import load_tokenizer

    tokenizer = load_tokenizer(model)
    longest = max(len(tokenizer(one.row.demonstration or "")["input_ids"]) for one in candidates)
    return min(LONGEST, longest + longest // 2 + 1)


def _reject(workspace: Workspace, found: Sorted) -> None:
    """What was left out for good is not looked at again."""
    with closing(workspace.interactions()) as store:
        there = {said.id for said, _ in store.feedback() if said.state != "learned"}
        final = [id for id, why in found.left_out.items() if why not in WAITING and id in there]
        store.set_state(final, "rejected")


def _counted(found: Sorted, rows: int, least: int) -> str:
    """What became of the feedback, in a line."""
    left = "".join(f"; {count} × {why}" for why, count in found.reasons().items())
    enough = "" if rows >= least else f", and a lesson needs {least}"
    return f"{rows} new row{'' if rows == 1 else 's'}{enough}{left}"


# --------------------------------------------------------------------------------------- as a service


class Ended(Exception):
    """Work was ended at a moment from which it can go on."""


def until(ended: Callable[[], bool], watch: Watch = lambda event: None) -> Watch:
    """Watches work, and ends it (`Ended`) between two steps, or two suites of questions, once `ended` says so."""

    def told(event: Event) -> None:
        watch(event)
        if ended():
            raise Ended

    return told


def every(seconds: float, look: Callable[[], Any], wait: Callable[[float], bool]) -> None:
    """Looks now and then, until told to end.

    Args:
        seconds: between the beginnings of two looks, or less where a look took longer.
        look: may take its time, and may end with `Ended`.
        wait: waits for so many seconds, and tells whether to end.
    """
    ended = False
    while not ended:
        started = time.monotonic()
        try:
            look()
        except Ended:
            return
        ended = wait(max(0.0, seconds - (time.monotonic() - started)))
