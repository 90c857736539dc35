"""Killed anywhere and continued, a run ends with the same weights, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command import QUICK, Outcome, Running, all_gone, run, start

STEPS = 16
SETTINGS = [*QUICK, "-s", f"steps={STEPS}", "-s", "checkpoint_every=2", "-s", "evaluate_every=7", "--json"]
MODES = {
    "sdft": [],
    "lora_ema": ["-s", "weights.kind=lora", "-s", "weights.rank=4", "-s", "teacher.kind=ema"],
    "by_two": ["--processes", "2"],
}


def weights(out: Path) -> bytes:
    (path,) = (out / "model").glob("*.safetensors")
    return path.read_bytes()


def curve(out: Path) -> list[tuple[int, float]]:
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return [(point["step"], point["loss"]) for point in report["runs"][1]["loss"]]


def checkpoints(out: Path) -> list[Path]:
    return sorted((out / "checkpoints").glob("step-*"))


def drafts(out: Path) -> list[Path]:
    return [path for pattern in (".*.tmp", ".*.old") for path in out.rglob(pattern)]


class Bench:
    """The same run in any folder, and how it ends undisturbed."""

    def __init__(self, data: Path, model: Path, folder: Path) -> None:
        self._words = ("learn", data, "-m", model, *SETTINGS)
        self.folder = folder

    def begin(self, out: Path, mode: str, *more: str) -> Running:
        return start(*self._words, *MODES[mode], "--out", out, *more)

    def undisturbed(self, mode: str) -> Path:
        out = self.folder / mode
        if not out.exists():
            outcome = self.begin(out, mode).wait()
            assert outcome.code == 0, outcome.err
        return out

    def resume(self, out: Path, mode: str) -> None:
        """Goes on with a run, and compares its end with that of the undisturbed one."""
        outcome = self.begin(out, mode, "--resume").wait()
        assert outcome.code == 0, outcome.err
        expected = self.undisturbed(mode)
        assert weights(out) == weights(expected)
        assert curve(out) == curve(expected)
        assert not drafts(out)


@pytest.fixture(scope="module")
def bench(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("resume")
    data = folder / "facts.jsonl"
    places = [("Ola", "Lima"), ("Bex", "Rome"), ("Cid", "Oslo"), ("Dov", "Cork"), ("Eve", "Bern")]
    rows = [{"question": f"Where is {a}?", "answer": f"In {b}.", "context": f"{a} is in {b}."} for a, b in places]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return Bench(data, tiny_model, folder)


@pytest.mark.parametrize(("mode", "step"), [("sdft", 2), ("lora_ema", 4)])
def test_killed_after_a_checkpoint(mode: str, step: int, bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "run"
    bench.undisturbed(mode)
    newest = f"step-{step:06d}"
    bench.begin(out, mode).kill_when(lambda: any(path.name >= newest for path in checkpoints(out)))
    assert not (out / "run.json").exists()
    bench.resume(out, mode)


def test_killed_again_and_again_at_random_moments(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "run"
    bench.undisturbed("sdft")
    dice = random.Random(5)
    for _ in range(3):
        running = bench.begin(out, "sdft", "--resume")
        time.sleep(dice.uniform(0.2, 0.8))
        running.signal(signal.SIGKILL)
        assert running.wait().code in (-signal.SIGKILL, 0)
    bench.resume(out, "sdft")


def test_killed_while_a_folder_is_being_written(bench: Bench, tmp_path: Path) -> None:
    """The draft of a checkpoint, or of the model, is there for a moment; what is left of it goes away."""
    for name, ready in {
        "checkpoint": lambda out: any((out / "checkpoints").glob(".step-*.tmp")),
        "model": lambda out: any(out.glob(".model.*.tmp")),
    }.items():
        out = tmp_path / name
        bench.begin(out, "sdft").kill_when(_of(ready, out))
        bench.resume(out, "sdft")


def _of(ready: Callable[[Path], bool], out: Path) -> Callable[[], bool]:
    return lambda: ready(out)


def test_damaged_checkpoint(bench: Bench, tmp_path: Path) -> None:
    """With another one it is passed over; alone it is told, and the run never begins again in silence."""
    out = tmp_path / "run"
    keep = ("-s", "keep_checkpoints=2")
    bench.undisturbed("sdft")
    bench.begin(out, "sdft", *keep).kill_when(lambda: any(path.name >= "step-000006" for path in checkpoints(out)))
    before, newest = checkpoints(out)[-2:]
    flip_a_byte(newest / "state-0001.safetensors")
    outcome = bench.begin(out, "sdft", *keep, "--resume").wait()
    assert outcome.code == 0, outcome.err
    assert weights(out) == weights(bench.undisturbed("sdft"))

    out = tmp_path / "alone"
    bench.begin(out, "sdft").kill_when(lambda: bool(checkpoints(out)))
    for path in checkpoints(out):
        flip_a_byte(path / "state-0001.safetensors")
    line = bench.begin(out, "sdft", "--resume").wait().error_line
    assert "no checkpoint is whole" in line
    assert "state-0001.safetensors is damaged" in line
    assert before.name < newest.name


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def test_interrupt(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "run"
    running = bench.begin(out, "sdft")
    running.wait_until(lambda: bool(checkpoints(out)))
    running.signal(signal.SIGINT)
    check_interrupted(running.wait())
    bench.resume(out, "sdft")


def check_interrupted(outcome: Outcome) -> None:
    assert outcome.code == 130
    assert outcome.out == ""
    hint = "run the same command with --resume to go on (a lesson in a workspace: without)"
    assert outcome.err == f"selftaught: interrupted; {hint}\n"


# --------------------------------------------------------------------------------- several processes

only_on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


def one_more_checkpoint(running: Running, out: Path) -> list[int]:
    """Waits until a run has got further than it was, and hands back the processes that it started."""
    before = {path.name for path in checkpoints(out)}
    running.wait_until(lambda: bool({path.name for path in checkpoints(out)} - before))
    found = running.children
    assert len(found) == 1
    return found


@only_on_linux
def test_two_processes_die_in_every_way_and_end_as_if_nothing_had_happened(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "run"
    bench.undisturbed("by_two")

    running = bench.begin(out, "by_two")
    (child,) = one_more_checkpoint(running, out)
    os.kill(child, signal.SIGKILL)
    line = running.wait().error_line
    assert "a training process ended unexpectedly, killed perhaps for lack of memory" in line
    assert "--resume" in line

    running = bench.begin(out, "by_two", "--resume")
    children = one_more_checkpoint(running, out)
    os.kill(running.pid, signal.SIGKILL)
    assert running.wait().code == -signal.SIGKILL
    assert all_gone(children), "nobody works for a process that is gone"

    running = bench.begin(out, "by_two", "--resume")
    children = one_more_checkpoint(running, out)
    running.signal(signal.SIGINT)
    check_interrupted(running.wait())
    assert all_gone(children)

    assert not (out / "run.json").exists()
    bench.resume(out, "by_two")


# ---------------------------------------------------------------------------------------- quickstart

EACH = ["steps=4", "checkpoint_every=1", "batch_size=2", "anchor.pool=2", "anchor.rows=1", "evaluate_every=0"]
EACH += ["rollout.max_new_tokens=4", "probes=false", "dtype=float32"]
QUICKSTART = [word for name in ("sdft", "sft", "sft_documents") for s in EACH for word in ("-s", f"{name}.{s}")]


def one_event() -> None:
    """What the command's process does first: one event instead of ten."""
    import functools

    import selftaught.main_job as module

    module.quickstart = functools.partial(module.quickstart, events=("d01",))  # type: ignore[assignment]


def begin_quickstart(model: Path, out: Path, *more: str) -> Running:
    words = ("quickstart", "-m", model, "--out", out, *QUICKSTART, "--processes", "2", *more, "--json")
    return start(*words, before=one_event)


@only_on_linux
def test_quickstart_goes_on_after_a_process_died_and_after_an_interrupt(tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    running = begin_quickstart(tiny_model, out)
    running.wait_until(lambda: any(out.glob("*/checkpoints/step-*")))
    (child,) = running.children
    os.kill(child, signal.SIGKILL)
    line = running.wait().error_line
    assert "a training process ended unexpectedly" in line
    assert "--resume" in line

    running = begin_quickstart(tiny_model, out, "--resume")
    running.wait_until(lambda: bool(running.children))  # it has only begun to start
    children = running.children
    running.signal(signal.SIGINT)
    check_interrupted(running.wait())
    assert all_gone(children)

    report = begin_quickstart(tiny_model, out, "--resume").wait().json
    assert [one["name"] for one in report["runs"]] == ["base", "sft", "sft_documents", "sdft"]
    assert report["machine"]["processes"] == 2
    assert json.loads((out / "report.json").read_text(encoding="utf-8")) == report

    for name in ("sft", "sft_documents", "sdft"):
        assert weights(out / name)
    assert not drafts(out)
    assert run("ask", out / "sdft", "Where?", "--max-new-tokens", 2).code == 0
