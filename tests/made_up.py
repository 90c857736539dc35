"""A workspace whose lessons are made up: no model is trained or asked, and all else is the real code.

The base's "weights" are a text. What a lesson comes to is decided by `SCORES`: by the seed of its configuration, the
number of items of each suite that are right afterwards (the first ones of the suite).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from selftaught.config import LearnConfig
from selftaught.continual import lesson, registry
from selftaught.continual.jobs import MODEL_FOLDER, RUN_FILE, Job, Suite, Watch, finished
from selftaught.continual.workspace import Workspace
from selftaught.files import whole_directory, write_json
from selftaught.types import Example, Message

ITEMS = 40  # test rows of each skill
BASE = {"a": 0, "b": 0}
SCORES: dict[int, dict[str, int]] = {
    1: {"a": 30, "b": 0},  # of a: promoted
    2: {"a": 2, "b": 30},  # of b, after 1: rejected, it wrecks a
    3: {"a": 30, "b": 25},  # of b, after 1: promoted
    4: {"a": 4, "b": 0},  # of a: inconclusive, a little is not much
    5: {"a": 30, "b": 4},  # of b, after 1: inconclusive
}
CONFIG = """model = "{model}"
[gate]
probes = "none"
tolerance = 0.1
"""


def rows(name: str, items: int = ITEMS) -> list[Example]:
    """Four rows to teach, and some to ask."""
    taught = [
        Example(f"{name}-{n}", (Message("user", f"Where is {name}{n}?"),), f"In {name} {n}.", f"{n}") for n in range(4)
    ]
    asked = [
        Example(f"{name}-test-{n}", (Message("user", f"And {name}{n}?"),), answers=(f"{n}",), split="test")
        for n in range(items)
    ]
    return [*taught, *asked]


def base_model(folder: Path) -> Path:
    """What passes for a model's directory as long as nobody loads it."""
    (folder / "tokenizer").mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer/vocabulary.txt"):
        (folder / name).write_text(f"{{}} of {name}", encoding="utf-8")
    return folder


def configured_text(model: object, more: str = "") -> str:
    """A workspace's file of settings: a gate that can decide on few items, and no probes."""
    return CONFIG.format(model=model) + more


def configured(root: Path, more: str = "") -> None:
    """Gives a workspace such settings, and some more."""
    (root / "selftaught.toml").write_text(configured_text(Workspace(root).config.model, more), encoding="utf-8")


def run_jobs(jobs: Sequence[tuple[Job, Path]], watch: Watch, processes: int) -> list[dict[str, Any]]:
    """Stands in for `jobs.run_jobs`: as it does, it leaves a folder each, and does nothing twice."""
    records = []
    for job, folder in jobs:
        record = finished(folder)
        if record is None:
            scores = BASE
            if job.config is not None:
                scores = SCORES[job.config.seed]
                with whole_directory(folder / MODEL_FOLDER) as draft:
                    base_model(draft / "inner")
                    text = f"{Path(job.model).name}, then seed {job.config.seed}"
                    (draft / "model.safetensors").write_text(text, encoding="utf-8")
            record = _record(job, scores)
            write_json(folder / RUN_FILE, record)
        records.append(record)
    return records


def _record(job: Job, scores: Mapping[str, int]) -> dict[str, Any]:
    asked = {suite.name: {"kind": suite.kind, "results": _answers(suite, scores)} for suite in job.suites or ()}
    config = job.config.model_dump(mode="json") if job.config else None
    training = dict.fromkeys(lesson.TRAINING_FIELDS) | {"steps": 1, "seconds": 1.0, "curve": [], "loss": []}
    return {**training, "method": "sdft", "config": config, "drift_nats": 0.01, "suites": asked, "lift": {}}


def _answers(suite: Suite, scores: Mapping[str, int]) -> list[dict[str, Any]]:
    right = scores.get(suite.name, 0)
    return [
        {"id": row.id, "group": row.group, "completion": f"“{row.id}”\u2028…", "correct": place < right}
        for place, row in enumerate(suite.examples)
    ]


def install(replace: Callable[[Any, str, Any], None] = setattr) -> None:
    """Puts made-up lessons in the place of real ones; `replace` may be a monkeypatch's `setattr`."""
    replace(lesson, "run_jobs", run_jobs)
    replace(registry, "run_jobs", run_jobs)
    replace(registry, "skill_suite", lambda name, rows, model: Suite(name, "skill", (), max_new_tokens=8))
    replace(registry, "_check_fit", lambda *words: None)  # it needs a tokenizer
    replace(registry, "_check_apart", lambda *words: None)  # it reads all probes


def make(root: Path, *skills: str) -> Workspace:
    """A workspace beside its base model, with skills."""
    base = root.with_name("base")
    workspace = Workspace.create(root, str(base if base.is_dir() else base_model(base)))
    configured(root)
    workspace = Workspace(root)
    for name in skills:
        registry.add_skill(workspace, name, rows(name), f"{name}.jsonl")
    return workspace


def teach(workspace: Workspace, skill: str, seed: int, **options: Any) -> lesson.Lesson:
    """A lesson that comes to what `SCORES` says."""
    return lesson.teach(workspace, skill, LearnConfig(seed=seed), **options)


def table_rows(root: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All that a ledger holds, but for the times, read past our own code."""
    connection = sqlite3.connect(root / ".selftaught" / "ledger.db")
    with contextlib.closing(connection):
        found = {}
        for table in ("skills", "versions", "evaluations", "verdicts", "events"):
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})") if row[1] != "created"]
            found[table] = list(connection.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY rowid"))
        return found


@contextlib.contextmanager
def read_only(*folders: Path) -> Iterator[None]:
    """Takes the right to write into folders away, and from root its power over that."""
    for folder in folders:
        folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for folder in folders:
            folder.chmod(0o755)


@contextlib.contextmanager
def public_folder() -> Iterator[Path]:
    """A temporary folder that every user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="selftaught-test-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
