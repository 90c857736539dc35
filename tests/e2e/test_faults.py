"""Killed between any two instructions, out of space, damaged, or two at once: nothing recorded is lost.

The kills are of the whole of what writes to a workspace, with made-up lessons (faults.py): at every counted operation,
at bytes in the middle of writes, and at instants of chance. Then real lessons of the tiny model, through the command
line.
"""

from __future__ import annotations

import functools
import json
import random
import shutil
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from command import QUICK, Outcome, run, start
from faults import examine, examine_and_go_on, in_a_process, kill_before, prepare, work
from made_up import table_rows

from selftaught.ledger.migrations import MIGRATIONS

KILLED = (-signal.SIGKILL, -signal.SIGXFSZ)


class Reference:
    """The work undisturbed, and how many operations and seconds it takes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = prepare(folder / "reference")
        assert in_a_process(examine, self.root) == 0  # the first process takes long to start
        begun = time.monotonic()
        assert in_a_process(work, self.root) == 0
        self.seconds = time.monotonic() - begun
        kinds = [row[1] for row in table_rows(self.root)["events"] if row[0]]
        assert len(kinds) == 9  # the base, four lessons, one rolled back, three swept
        self.kills = 0

    def kill(self, name: str, die: int = 0, max_file_bytes: int = 0, after: float | None = None) -> bool:
        """Kills the work in a fresh workspace, checks what is left, and goes on; False if it was done before."""
        root = prepare(self.folder / name)
        code = in_a_process(work, root, die, max_file_bytes, after=after)
        assert code in (0, *KILLED)
        self.kills += code != 0
        assert in_a_process(examine_and_go_on, root, self.root) == 0
        return code != 0


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return Reference(tmp_path_factory.mktemp("faults"))


def test_killed_at_some_operations(reference: Reference) -> None:
    for die in (1, 23, 95, 200, 330, 480, 600, 700):
        assert reference.kill(f"operation-{die}", die)


def test_killed_in_the_middle_of_some_writes(reference: Reference) -> None:
    for size in (600, 5_000, 30_000, 90_000):
        assert reference.kill(f"byte-{size}", max_file_bytes=size)


def test_killed_again_and_again(reference: Reference) -> None:
    """Each process does a little more than the last one could."""
    root = prepare(reference.folder / "again")
    for die in range(20, 800, 65):
        if in_a_process(work, root, die) == 0:
            break
        assert in_a_process(examine, root) == 0
    assert in_a_process(examine_and_go_on, root, reference.root) == 0


@pytest.mark.slow
def test_killed_at_every_operation(reference: Reference, capsys: pytest.CaptureFixture[str]) -> None:
    die = 1
    while reference.kill(f"every-{die}", die):
        die += 1
    with capsys.disabled():
        print(f"\n{die - 1} kills, one before each operation")
    assert die > 200


@pytest.mark.slow
def test_killed_in_the_middle_of_writes_and_at_instants_of_chance(
    reference: Reference, capsys: pytest.CaptureFixture[str]
) -> None:
    begun, size = reference.kills, 100
    while reference.kill(f"every-byte-{size}", max_file_bytes=size):
        size += 1531
    writes = reference.kills - begun
    dice = random.Random(3)
    for number in range(80):
        reference.kill(f"chance-{number}", after=dice.uniform(0.01, reference.seconds))
    chance = reference.kills - begun - writes
    with capsys.disabled():
        print(f"\n{writes} kills in the middle of writes, {chance} at instants of chance")
    assert writes > 20
    assert chance > 20


# -------------------------------------------------------------------------------- lessons of a real model

LESSON = [*QUICK, "--method", "sft", "-s", "learning_rate=1e-2", "-s", "steps=40", "-s", "batch_size=6"]
LESSON += ["-s", "checkpoint_every=10", "--json"]


@pytest.fixture(scope="module")
def template(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with one skill: whatever is asked, the answer is yes."""
    root = tmp_path_factory.mktemp("template") / "work"
    root.mkdir()
    (root / "selftaught.toml").write_text(f'model = "{tiny_model}"\n[gate]\nprobes = "none"\n', encoding="utf-8")
    assert run("init", root, "-m", tiny_model).code == 0
    rows: list[dict[str, Any]] = [
        {"question": f"Is {n} a number?", "answer": "Yes", "answers": ["Yes"]} for n in range(6)
    ]
    rows += [{"question": f"And {n}?", "answers": ["Yes"], "split": "test"} for n in range(20)]
    (root / "yes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    added = run("skills", "add", "yes", root / "yes.jsonl", "--no-measure", "-w", root)
    assert added.code == 0, added.err
    return root


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    """A copy of that workspace."""
    return Path(shutil.copytree(template, tmp_path / "work"))


@pytest.fixture(scope="module")
def calm(template: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The lesson undisturbed."""
    root = Path(shutil.copytree(template, tmp_path_factory.mktemp("calm") / "work"))
    assert learn(root).code == 0
    return result(root)


def learn(root: Path, *more: str, **options: Any) -> Outcome:
    return run("learn", "yes", "-w", root, *LESSON, *more, **options)


def result(root: Path) -> dict[str, Any]:
    """What a lesson came to: all but times and places."""
    tables = table_rows(root)
    (version,) = [row for row in tables["versions"] if row[0]]
    training = json.loads(version[-1])
    return {
        "loss": [point["loss"] for point in training["loss"]],
        "weights": version[-4],
        "evaluations": [row[:3] + row[-3:] for row in tables["evaluations"]],
        "verdict": tables["verdicts"],
        "events": [row[1:4] for row in tables["events"]],
    }


MOMENTS = {
    "training": ("selftaught.train.loop", "save_checkpoint", 3),
    "saving": ("selftaught.train.loop", "save_model", 1),
    "measuring": ("selftaught.continual.jobs", "_measure", 2),
    "judging": ("selftaught.continual.lesson", "_judged", 1),
    "keeping": ("selftaught.ledger.artifacts:Artifacts", "put_text", 2),
    "recording": ("selftaught.ledger.store", "_insert_event", 1),
    "recorded": ("selftaught.continual.lesson", "discard", 1),
}


@pytest.mark.parametrize(
    "moment", [pytest.param(name, marks=[pytest.mark.slow] * (name in ("saving", "keeping"))) for name in MOMENTS]
)
def test_a_lesson_that_was_killed_and_had_again_is_one_version(moment: str, calm: dict[str, Any], root: Path) -> None:
    assert learn(root, before=functools.partial(kill_before, *MOMENTS[moment])).code == -signal.SIGKILL
    assert run("fsck", "-w", root).code == 0
    assert run("log", "-w", root, "--json").json["head"] == ("v1" if moment == "recorded" else "v0")
    outcome = learn(root)
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["version"]["number"] == 1
    assert result(root) == calm
    assert list((root / ".selftaught" / "runs").iterdir()) == []
    assert run("fsck", "-w", root).out == "sound: 2 versions, 5 artifacts, HEAD is v1\n"


def test_while_a_lesson_goes_on_others_may_read_and_none_may_write(root: Path, tmp_path: Path) -> None:
    first = start("learn", "yes", "-w", root, *LESSON, "-s", "steps=400")
    first.wait_until(lambda: any(root.glob(".selftaught/runs/*/lesson/checkpoints/step-*")))
    for words in (["learn", "yes", *LESSON], ["rollback", "v0"], ["gc"], ["skills", "add", "no", root / "yes.jsonl"]):
        line = run(*words, "-w", root).error_line
        assert "another process is at work in it; wait until it is done" in line
    assert run("log", "-w", root, "--json").json["head"] == "v0"
    assert run("fsck", "-w", root).code == 0
    assert run("export", "HEAD", tmp_path / "out", "-w", root).code == 0
    first.signal(signal.SIGKILL)
    assert first.wait().code == -signal.SIGKILL
    assert run("gc", "-w", root).code == 0, "the lock has died with its process"


def test_out_of_space(calm: dict[str, Any], root: Path) -> None:
    """In the ledger, and in training; then, with space again, the same command goes on."""
    for size, problem, hint in (
        (20_000, "disk I/O error", "see whether the disk is full or failing"),
        (150_000, "File too large", "free some space or choose another place"),
    ):
        line = learn(root, max_file_bytes=size).error_line
        assert problem in line
        assert hint in line
        assert run("fsck", "-w", root).code == 0
    assert learn(root).code == 0
    assert result(root) == calm
    line = run("rollback", "v0", "-w", root, max_file_bytes=2_000).error_line
    assert "see whether the disk is full or failing" in line
    assert run("log", "-w", root, "--json").json["head"] == "v1"
    assert run("rollback", "v0", "-w", root).code == 0


def test_damaged(root: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Weights, then the ledger: each is told in one line that says what to do, and nothing is done on top of it."""
    assert learn(root).code == 0
    (artifact,) = {row[-4] for row in table_rows(root)["versions"] if row[0]}
    weights = root / ".selftaught" / "artifacts" / artifact / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    found = run("fsck", "-w", root)
    assert (found.code, found.out.count("\n")) == (1, 1)
    assert "(it holds the weights of v1)" in found.out
    for words in (["learn", "yes", *LESSON], ["export", "HEAD", tmp_path / "out"]):
        line = run(*words, "-w", root).error_line
        assert "v1: its weights cannot be used" in line
        assert "restore it from a backup, or go back to an earlier version with selftaught rollback" in line
    assert run("rollback", "v0", "-w", root).code == 0
    assert run("export", "HEAD", tmp_path / "out", "-w", root).code == 0

    ledger = root / ".selftaught" / "ledger.db"
    for number, words in ((99, "use a newer selftaught"), (len(MIGRATIONS), "")):
        connection = sqlite3.connect(ledger)
        connection.execute(f"PRAGMA user_version = {number}")
        connection.close()  # which brings what waited in the log into the file
        if words:
            assert words in run("log", "-w", root).error_line
    sound = ledger.read_bytes()
    ledger.write_bytes(b"x" * len(sound))
    for words in (["log"], ["fsck"], ["learn", "yes"], ["init", "-m", tiny_model]):
        where = [root] if words[0] == "init" else ["-w", root]
        assert "restore it from a backup" in run(words[0], *where, *words[1:]).error_line
    ledger.write_bytes(sound)
    assert run("log", "-w", root, "--json").json["head"] == "v0"
