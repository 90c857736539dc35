"""What is killed in test_faults.py: everything that writes to a workspace, with lessons that are made up.

The functions run in processes of their own. `work` goes through a plan and goes on where an earlier process was
killed; `die_at` kills the process at one of its write-like operations; `examine` looks at what was left.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import resource
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_up
from command import PRELOADED
from made_up import configured_text, rows, table_rows, teach

from selftaught.continual.registry import add_skill
from selftaught.continual.workspace import Workspace
from selftaught.errors import ConfigError

PLAN = (("a", 1), ("b", 2), ("b", 3), ("a", 4))
OUTCOMES = ["promoted", "rejected", "promoted", "rejected"]
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("rename", "link", "symlink", "mkdir", "remove", "rmdir", "chmod", "truncate")
COUNTED = {f"os.{name}" for name in CHANGES} | {"shutil.copyfile", "shutil.rmtree", "shutil.copytree"}


def prepare(place: Path) -> Path:
    """A folder in which a workspace can be made."""
    root = place / "work"
    root.mkdir(parents=True)
    base = place.parent / "base"
    if not base.is_dir():
        made_up.base_model(base)
    (root / "selftaught.toml").write_text(configured_text(base), encoding="utf-8")
    return root


def in_a_process(function: Callable[..., None], *words: Any, after: float | None = None) -> int:
    """Runs a function in a process of its own, kills it after some seconds or not, and returns its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=function, args=words)
    process.start()
    if after is not None:
        process.join(after)
        process.kill()
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode


# --------------------------------------------------------------------------------------------- the work


def work(root: Path, die: int = 0, max_file_bytes: int = 0) -> None:
    """Makes a workspace, teaches, rolls back and sweeps; says in a file what is done, once it is.

    Args:
        root: where.
        die: number of the operation at which the process is killed; 0 is never.
        max_file_bytes: the byte of any file at which it is killed, in the middle of a write; 0 is never.
    """
    made_up.install()
    _die_at(die)
    if max_file_bytes:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
    try:
        Workspace.create(root, str(root.parent.parent / "base"))
    except ConfigError:
        assert Workspace(root).ledger.has_head()
    workspace = Workspace(root)
    for name in ("a", "b"):
        if name not in [skill.name for skill in workspace.ledger.skills()]:
            add_skill(workspace, name, rows(name), f"{name}.jsonl")
            _say(root, {"skill": name})
    for skill, seed in PLAN:
        recorded = any(version.seed == seed for version in workspace.ledger.versions())
        if not recorded or seed in _under_way(workspace):
            version = teach(workspace, skill, seed).version
            scores = {one.suite: one.correct for one in workspace.ledger.evaluations(version)}
            _say(root, {"version": version.number, "seed": seed, "model": version.model_artifact, "scores": scores})
    if workspace.ledger.head().seed == 3:
        workspace.roll_back("v1", "by hand")
        _say(root, {"rolled back": 3})
    workspace.collect()
    _say(root, {"all": "done"})


def _under_way(workspace: Workspace) -> list[int]:
    """Seeds of lessons whose commands a user would give again: they did not come to their end."""
    requests = [path.read_text(encoding="utf-8") for path in workspace.runs.glob("[!.]*/request.json")]
    return [json.loads(request)["config"]["seed"] for request in requests]


def _say(root: Path, what: dict[str, Any]) -> None:
    handle = os.open(root.parent / "said.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(handle, (json.dumps(what) + "\n").encode())
    os.close(handle)


def _said(root: Path) -> list[dict[str, Any]]:
    path = root.parent / "said.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _die_at(number: int) -> None:
    """Counts what may change a disk, and kills this process before the given one."""
    count = 0

    def tick() -> None:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def statement(sql: str) -> None:
        if not sql.lstrip().upper().startswith(("SELECT", "--")):
            tick()

    def hook(event: str, words: tuple[Any, ...]) -> None:
        if event in COUNTED or (event == "open" and isinstance(words[2], int) and words[2] & WRITING):
            tick()

    fsync, connect = os.fsync, sqlite3.connect

    def counted_fsync(handle: int) -> None:
        tick()  # written, and perhaps not on the disk
        fsync(handle)
        tick()

    def counted_connect(*words: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*words, **options)
        connection.set_trace_callback(statement)
        return connection

    if number:
        sys.addaudithook(hook)
        os.fsync, sqlite3.connect = counted_fsync, counted_connect


# ----------------------------------------------------------------------------------------- what is left


def examine(root: Path) -> None:
    """Whatever happened: HEAD is whole, what was said to be done is there, and no version is half."""
    said = _said(root)
    ledger = root / ".selftaught" / "ledger.db"
    if not ledger.is_file() or not Workspace(root).ledger.has_head():
        assert not said
        return
    workspace = Workspace(root)
    _verify(workspace.artifacts.path(workspace.ledger.head().model_artifact))
    assert workspace.check() == []
    tables = table_rows(root)
    numbers = [row[0] for row in tables["versions"]]
    assert numbers == list(range(len(numbers)))
    for number in numbers:
        assert sum(row[2] == number for row in tables["events"]) >= 1
        if number:
            assert sum(row[0] == number for row in tables["verdicts"]) == 1
            assert [row[1] for row in tables["evaluations"] if row[0] == number] == ["a", "b"]
    for word in said:
        _find(workspace, word)


def _find(workspace: Workspace, word: dict[str, Any]) -> None:
    """What was said is so."""
    if "skill" in word:
        assert len(workspace.rows(workspace.ledger.skill(word["skill"]))) == len(rows("a"))
    if "version" in word:
        version = workspace.ledger.version(str(word["version"]))
        assert (version.seed, version.model_artifact) == (word["seed"], word["model"])
        evaluations = workspace.ledger.evaluations(version)
        assert {one.suite: one.correct for one in evaluations} == word["scores"]
        for one in evaluations:
            assert sum(item["correct"] for item in workspace.results(one)) == one.correct
    if "rolled back" in word:
        assert workspace.ledger.head().name == "v1"


def _verify(folder: Path) -> None:
    """Every byte, without our own code."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for name, digest in manifest.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == folder.name


def examine_and_go_on(root: Path, reference: Path) -> None:
    """Examines what a kill left; then the same work again, undisturbed, ends as if there had been no kill."""
    examine(root)
    work(root)
    examine(root)
    assert table_rows(root) == table_rows(reference)
    assert _files(root) == _files(reference)


def _files(root: Path) -> list[str]:
    """All but SQLite's own; hidden ones, which would be left-overs, too."""
    names = (path.relative_to(root).as_posix() for path in root.rglob("*"))
    return sorted(name for name in names if "ledger.db" not in name)


# ------------------------------------------------------------------------- inside of a command's process


def kill_before(module: str, name: str, call: int = 1) -> None:
    """Makes the command's process kill itself before the given call of a function of a module or class."""
    import importlib

    place: Any = importlib.import_module(module.partition(":")[0])
    for part in filter(None, module.partition(":")[2].split(".")):
        place = getattr(place, part)
    plain, count = getattr(place, name), 0

    def deadly(*words: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(*words, **options)

    setattr(place, name, deadly)
