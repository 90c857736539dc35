"""Registering skills: a name, rows, and splits that are fixed from then on by their hash."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from selftaught.continual.jobs import Job, Watch, run_jobs, skill_suite
from selftaught.continual.suites import lift_rows
from selftaught.continual.workspace import Workspace
from selftaught.data import data_hash, load_examples
from selftaught.data.rows import from_json_lines, to_json_lines
from selftaught.data.skills import SKILLS, build_skill
from selftaught.data.skills.built import counts
from selftaught.errors import ConfigError, DataError
from selftaught.ledger.records import Skill
from selftaught.ledger.store import now
from selftaught.prompts import student_prompt
from selftaught.types import Example, Message


def load_skill(name: str, data: str | Path | None) -> tuple[list[Example], str, dict[str, Any]]:
    """The rows of a skill: the user's own, or built from registry packages.

    Args:
        name: of the skill.
        data: a file or a hub data set; None builds the skill of that name.

    Returns:
        The rows, where they come from, and the start of a card.

    Raises:
        DataError: the data cannot be read, or the packages cannot be had.
        ConfigError: there is no data, and no such built-in skill.
    """
    if data is not None:
        return load_examples(data), str(data), {}
    if name not in SKILLS:
        raise ConfigError(f"{name}: give its data, a file or a hub data set; built in are {', '.join(SKILLS)}")
    skill = build_skill(name)
    return list(skill.examples), skill.card["source"], dict(skill.card)


def add_skill(
    workspace: Workspace,
    name: str,
    examples: Sequence[Example],
    source: str,
    card: Mapping[str, Any] | None = None,
    measure: bool = False,
    watch: Watch = lambda event: None,
    processes: int = 0,
) -> Skill:
    """Registers a skill: its rows and their splits are fixed from now on, by hash.

    Without test rows, those of split train are divided by the hash of their prompt: 70% train, 10% validation, 20%
    test.

    Args:
        workspace: where.
        name: letters, digits, - and _.
        examples: its rows.
        source: where they come from.
        card: what else is known of it.
        measure: ask HEAD the taught questions, without and with the demonstration, for the card.
        watch: told what happens.
        processes: how many measure it; 0 is one a core.

    Raises:
        DataError: no test rows, or none to teach, a prompt is in two splits, or a row could not be read again.
        ConfigError: the name is no plain word, or is a probe family's.
    """
    from selftaught.evaluation.probes import FAMILIES
    from selftaught.evaluation.scorers import check_scorers

    if not name.replace("-", "").replace("_", "").isalnum() or name.startswith("-") or name in FAMILIES:
        raise ConfigError(f"{name!r}: name a skill by letters, digits, - (not first) and _, not as a probe family")
    check_scorers(examples)
    rows = split_rows(examples)
    _check_splits(rows, source)
    _check_round_trip(rows, source)
    with workspace.writing():
        workspace.ledger.check_new_skill(name)
        _check_apart(workspace, rows, source)
        head = workspace.model_folder(workspace.ledger.head())
        suite = skill_suite(name, rows, head)
        _check_fit(rows, head, suite.max_new_tokens, source)
        card = {**(card or {}), "counts": counts(rows)}
        if measure:
            card["measured"] = _measured(workspace, rows, head, watch, processes)
        skill = Skill(
            name=name,
            created=now(),
            source=source,
            data_hash=data_hash(rows),
            rows_artifact=workspace.artifacts.put_text(to_json_lines(rows)),
            max_new_tokens=suite.max_new_tokens,
            card=card,
        )
        workspace.ledger.add_skill(skill)
    return skill


def _measured(
    workspace: Workspace, rows: Sequence[Example], head: Path, watch: Watch, processes: int
) -> dict[str, Any]:
    """HEAD's accuracy on some taught rows, without and with the demonstration."""
    asked = lift_rows(rows)
    config = workspace.config.learn_config({}, ())
    job = Job("head", "HEAD", str(head), None, asked, suites=(), lift_config=config)
    workspace.runs.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=workspace.runs) as scratch:  # gc sweeps what a kill leaves
        (record,) = run_jobs([(job, Path(scratch))], watch, processes)
    lift = record["lift"]
    return {
        "version": workspace.ledger.head().name,
        "rows": len(asked),
        "without": lift["without"]["value"],
        "with_demonstration": lift["with"]["value"],
        "warning": lift["warning"],
    }


def split_rows(examples: Sequence[Example]) -> list[Example]:
    """Rows with their splits: as they are where some are for testing, else those to teach by hash of the prompt."""
    if any(row.split == "test" for row in examples):
        return list(examples)
    rows = []
    for row in examples:
        if row.split != "train":
            rows.append(row)
            continue
        text = json.dumps([[message.role, message.content] for message in row.prompt])
        place = int(hashlib.sha256(text.encode()).hexdigest(), 16) % 100
        split: Literal["train", "validation", "test"] = (
            "train" if place < 70 else "validation" if place < 80 else "test"
        )
        rows.append(dataclasses.replace(row, split=split))
    return rows


def _check_splits(rows: Sequence[Example], source: str) -> None:
    for split, least in (("train", 1), ("test", 1)):
        if sum(row.split == split for row in rows) < least:
            raise DataError(f"{source}: has no row of split {split!r}; add more rows, or give them a split column")
    first: dict[tuple[Message, ...], Example] = {}
    for row in sorted(rows, key=lambda row: row.split != "train"):
        other = first.setdefault(row.prompt, row)
        if other.split != row.split:
            does = "teaches" if other.split == "train" else "asks too"
            raise DataError(
                f"{source}: row {row.id!r} of split {row.split!r} asks what row {other.id!r} {does}; "
                "remove one of the two"
            )


def _check_apart(workspace: Workspace, rows: Sequence[Example], source: str) -> None:
    """No skill teaches what another one, or a probe, asks: forgetting would then look like knowledge."""
    from selftaught.evaluation.probes import FAMILIES, probe_bank

    taught = {row.prompt: row.id for row in rows if row.split == "train"}
    asked = {row.prompt: row.id for row in rows if row.split != "train"}
    others = {skill.name: workspace.rows(skill) for skill in workspace.ledger.skills()}
    others |= {name: probe_bank(name).examples for name in FAMILIES}
    for name, theirs in others.items():
        for row in theirs:
            mine = (asked if row.split == "train" else taught).get(row.prompt)
            if mine is not None:
                does = ("asks", "teaches") if row.split == "train" else ("teaches", "asks")
                raise DataError(
                    f"{source}: row {mine!r} {does[0]} what row {row.id!r} of {name} {does[1]}; remove it from the data"
                )


def _check_fit(rows: Sequence[Example], model: Path, max_new_tokens: int, source: str) -> None:
    """A row that does not fit the model would stop every lesson from now on."""
    from selftaught.models.load import load_tokenizer, longest_input

    tokenizer, room = load_tokenizer(model), longest_input(model)
    for row in rows:
        length = len(student_prompt(row, tokenizer))
        if length + max_new_tokens > room:
            raise DataError(
                f"{source}: row {row.id!r} has a prompt of {length} tokens; with an answer of up to {max_new_tokens} "
                f"it does not fit the model's {room}; shorten or remove it"
            )


def _check_round_trip(rows: Sequence[Example], source: str) -> None:
    """Rows that did not come from a reader may hold what none accepts: found now, and not in the next lesson."""
    if len({row.id for row in rows}) < len(rows):
        raise DataError(f"{source}: two rows have the same id; give each row an id of its own")
    for row in rows:
        try:
            (found,) = from_json_lines(to_json_lines([row]))
        except (ValueError, TypeError) as error:
            raise DataError(f"{source}: row {row.id!r} {error}") from error
        if data_hash([found]) != data_hash([row]):
            raise DataError(
                f"{source}: row {row.id!r} would not be read as it is; remove blanks around its texts and empty ones"
            )
