"""`learn` by several processes, on one host and on two: killed, told to go, hung, cut off; and what is left goes on.

The fast tests fork the processes with torchrun's variables; torchrun itself is started where it has work of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import QUICK_SETTINGS, Outcome, Running, run
from launching import Host, has_stopped, in_step, launch, launch_on, torchrun, two_hosts, why_no_hosts
from safetensors.torch import load_file

from selftaught.errors import GO_ON
from selftaught.files import verify_directory

LOST = (
    "a training process ended or hung, killed perhaps for lack of memory, or its machine is gone; what is done is "
    f"kept: {GO_ON}, with as many processes as you like"
)
STEPS, EVERY, DIES = 8, 2, 5  # the step in which something happens; the checkpoint after the fourth is there
SETTINGS = [*QUICK_SETTINGS, "batch_size=4", "dtype=float32", f"steps={STEPS}", f"checkpoint_every={EVERY}"]
WORDS = [word for setting in SETTINGS for word in ("-s", setting)]
SHORT = {"SELFTAUGHT_TIMEOUT_SECONDS": "4"}
HOSTLESS = why_no_hosts()


@dataclasses.dataclass(frozen=True)
class Lesson:
    """What is taught to what."""

    data: Path
    model: Path

    def words(self, out: Path, *more: str) -> list[object]:
        return ["learn", self.data, "-m", self.model, "--out", out, *WORDS, "--json", *more]


@pytest.fixture(scope="module")
def lesson(sharp_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Lesson:
    rows = [
        {"question": f"Where is {name}?", "answer": f"In {place}.", "context": f"{name} is in {place}."}
        for name, place in [("Ola", "Lima"), ("Bex", "Rome"), ("Cid", "Oslo"), ("Dov", "Cork")]
    ]
    path = tmp_path_factory.mktemp("rows") / "facts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return Lesson(path, sharp_model)


@pytest.fixture(scope="module")
def calm(lesson: Lesson, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process, undisturbed."""
    out = tmp_path_factory.mktemp("calm") / "run"
    assert run(*lesson.words(out, "--processes", "1")).code == 0
    return out


def losses(out: Path) -> dict[int, float]:
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return {point["step"]: point["loss"] for point in report["runs"][-1]["loss"]}


def processes_of(out: Path) -> int:
    """How many ended the run."""
    return int(json.loads((out / "run.json").read_text(encoding="utf-8"))["processes"])


def assert_as_if_nothing_had_happened(out: Path, calm: Path, lesson: Lesson) -> None:
    """Every step once, the same losses, and weights whose difference is small beside how far they went."""
    ours, theirs = losses(out), losses(calm)
    assert list(ours) == list(theirs)
    assert ours == {step: pytest.approx(loss, rel=2e-3, abs=1e-6) for step, loss in theirs.items()}
    start, one, other = (
        load_file(folder / "model.safetensors") for folder in (lesson.model, out / "model", calm / "model")
    )
    moved = sum(float((other[name] - weight).square().sum()) for name, weight in start.items())
    off = sum(float((other[name] - weight).square().sum()) for name, weight in one.items())
    assert one.keys() == other.keys() and off < 1e-3 * moved, (off, moved)
    assert not (out / "checkpoints").exists()


def assert_kept(out: Path) -> None:
    """The last checkpoint, whole, and nothing half."""
    (checkpoint,) = (out / "checkpoints").iterdir()
    assert checkpoint.name == f"step-{DIES - 1:06d}"
    verify_directory(checkpoint)
    assert not (out / "model").exists()


def assert_told(outcome: Outcome, rank: int) -> None:
    """One line, and the exit code of an error: 2 of the first process, which tells the user; 1 of another."""
    who = "selftaught: " if rank == 0 else f"selftaught: process {rank}: "
    assert (outcome.code, outcome.out) == (1 if rank else 2, "")
    assert outcome.err.splitlines() == [who + LOST]


def go_on(lesson: Lesson, out: Path, size: int, *more: str) -> None:
    """The same command by another number of processes; 0 is one without torchrun."""
    if size:
        outcomes = [one.wait() for one in launch(size, *lesson.words(out, "--resume", *more))]
    else:
        outcomes = [run(*lesson.words(out, "--resume", "--processes", "1", *more))]
    assert [one.code for one in outcomes] == [0] * len(outcomes), outcomes
    assert processes_of(out) == max(size, 1)
    assert [one.out for one in outcomes[1:]] == [""] * (size - 1 if size else 0)


@pytest.fixture
def processes() -> Iterator[list[Running]]:
    """Those of a test, none of which outlives it."""
    started: list[Running] = []
    yield started
    for one in started:
        one.end()


# --------------------------------------------------------------------------------------------- one host


@pytest.mark.parametrize(
    ("victim", "parallel", "then"),
    [
        pytest.param(1, "fsdp2", 3),
        pytest.param(0, "ddp", 1),
        pytest.param(0, "fsdp2", 4, marks=pytest.mark.slow),
        pytest.param(1, "ddp", 3, marks=pytest.mark.slow),
    ],
)
def test_a_process_is_killed_and_another_number_of_them_goes_on(
    victim: int, parallel: str, then: int, lesson: Lesson, calm: Path, tmp_path: Path, processes: list[Running]
) -> None:
    out, together = tmp_path / "run", ["-s", f"parallel={parallel}"]
    processes += launch(2, *lesson.words(out, *together), hooks={victim: in_step(signal.SIGKILL, DIES)})
    outcomes = [one.wait() for one in processes]
    assert outcomes[victim].code == -signal.SIGKILL
    assert_told(outcomes[1 - victim], 1 - victim)
    assert_kept(out)
    go_on(lesson, out, then, *together)
    assert_as_if_nothing_had_happened(out, calm, lesson)


def test_a_scheduler_takes_the_machine_back(
    lesson: Lesson, calm: Path, tmp_path: Path, processes: list[Running]
) -> None:
    """SIGTERM to all; what is left is ended by one process without torchrun."""
    out, hook = tmp_path / "run", in_step(signal.SIGTERM, DIES)
    processes += launch(2, *lesson.words(out), hooks={0: hook, 1: hook})
    first, second = (one.wait() for one in processes)
    assert_told(first, 0)
    assert second.code == 1 and second.err in ("", f"selftaught: process 1: {LOST}\n")  # whoever tells first
    assert_kept(out)
    go_on(lesson, out, 0)
    assert_as_if_nothing_had_happened(out, calm, lesson)


@pytest.mark.parametrize("victim", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_process_hangs(victim: int, lesson: Lesson, tmp_path: Path, processes: list[Running]) -> None:
    """The other waits as long as it was told to, and no longer; the one that hung ends when it comes back."""
    out = tmp_path / "run"
    words = lesson.words(out, "-s", "parallel=fsdp2")
    processes += launch(2, *words, hooks={victim: in_step(signal.SIGSTOP, DIES)}, environment=SHORT)
    assert_told(processes[1 - victim].wait(timeout=60), 1 - victim)
    assert_kept(out)
    processes[victim].signal(signal.SIGCONT)
    assert_told(processes[victim].wait(timeout=60), victim)


def test_a_dry_run_meets_and_writes_nothing(lesson: Lesson, tmp_path: Path, processes: list[Running]) -> None:
    out = tmp_path / "run"
    processes += launch(2, *lesson.words(out, "--dry-run", "-s", "parallel=fsdp2"))
    first, second = (one.wait() for one in processes)
    assert (second.code, second.out, second.err) == (0, "", "")
    found = first.json
    assert (found["processes"], list(found["machines"].values()), found["steps"]) == (2, [2], STEPS)
    assert not out.exists()


def workers(parent: int) -> dict[str, int]:
    """Process ids of what torchrun has started, by rank."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text(encoding="utf-8").rpartition(")")[2].split()[1]) == parent:
                words = path.with_name("environ").read_bytes().decode().split("\0")
                variables = dict(word.split("=", 1) for word in words if "=" in word)
                found[variables.get("RANK", "")] = int(path.parent.name)
    return found


def test_processes_that_are_started_anew_meet_in_the_store_of_the_earlier_ones(
    lesson: Lesson, calm: Path, tmp_path: Path, processes: list[Running]
) -> None:
    """torchrun's agent keeps one store for all its tries: whom the killed ones called, and where, is still in it."""
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    out = tmp_path / "run"
    agents = {"TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_PORT": str(store.port)}
    words = lesson.words(out, "--resume", "-s", "parallel=fsdp2")
    processes += launch(2, *words, hooks={1: in_step(signal.SIGKILL, DIES)}, environment=agents)
    assert_told(processes[0].wait(), 0)
    assert processes[1].wait().code == -signal.SIGKILL
    again = launch(2, *words, environment=agents)
    processes += again
    assert [one.wait().code for one in again] == [0, 0]
    assert_as_if_nothing_had_happened(out, calm, lesson)


@pytest.mark.slow
def test_torchrun_starts_anew_what_was_killed(lesson: Lesson, tmp_path: Path) -> None:
    """Its own --max-restarts, with --resume from the start, goes on from the last checkpoint."""
    out, steps = tmp_path / "run", 60
    words = lesson.words(out, "--resume", "-s", "parallel=fsdp2", "-s", f"steps={steps}", "-s", "keep_checkpoints=99")
    agent = torchrun("--standalone", "--nproc-per-node", 2, "--max-restarts", 1, "-m", "selftaught", *words)
    try:
        end = time.monotonic() + 120
        while not (out / "checkpoints" / "step-000004").exists():
            assert agent.poll() is None and time.monotonic() < end, agent.stderr and agent.stderr.read()
            time.sleep(0.01)
        os.kill(workers(agent.pid)["1"], signal.SIGKILL)
        said, complained = agent.communicate(timeout=120)
    finally:
        agent.kill()
    assert agent.returncode == 0, complained
    assert complained.count(LOST) == 1, "the first try's first process"
    report = json.loads(said)
    assert [point["step"] for point in report["runs"][-1]["loss"]] == list(range(1, steps + 1))


# --------------------------------------------------------------------------------------------- two hosts


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    if HOSTLESS:
        pytest.skip(HOSTLESS)
    with two_hosts() as both:
        yield both


def test_two_hosts_train_together_until_the_wire_is_cut(
    hosts: tuple[Host, Host], lesson: Lesson, calm: Path, tmp_path: Path, processes: list[Running]
) -> None:
    """Both end with a line and what is done is kept; once the wire is mended they go on together."""
    out, together = tmp_path / "run", ["-s", "parallel=fsdp2"]
    processes += launch_on(hosts, *lesson.words(out, *together), hook=in_step(signal.SIGSTOP, DIES), environment=SHORT)
    processes[0].wait_until(lambda: has_stopped(processes[0].pid))
    hosts[1].cut()
    processes[0].signal(signal.SIGCONT)
    for rank, process in enumerate(processes):
        assert_told(process.wait(timeout=60), rank)
    assert_kept(out)
    hosts[1].mend()
    again = launch_on(hosts, *lesson.words(out, "--resume", *together))
    processes += again
    first, second = (one.wait() for one in again)
    assert (first.code, second.code, second.out, second.err) == (0, 0, "", ""), (first, second)
    assert processes_of(out) == 2
    assert_as_if_nothing_had_happened(out, calm, lesson)


def test_a_host_that_cannot_be_reached_is_told(
    hosts: tuple[Host, Host], lesson: Lesson, tmp_path: Path, processes: list[Running]
) -> None:
    """In the last line; torch says more before it."""
    hosts[1].cut()
    short = {"SELFTAUGHT_TIMEOUT_SECONDS": "2"}
    processes += launch_on(hosts, *lesson.words(tmp_path / "run"), environment=short)
    lines = []
    for process in processes:
        outcome = process.wait(timeout=60)
        assert (outcome.code, outcome.out) == (2, "") and "Traceback" not in outcome.err
        lines.append(outcome.err.splitlines()[-1])
    assert lines[0].startswith("selftaught: ") and "10.77.0.1:29511" in lines[0]
    assert lines[1].startswith("selftaught: process 1: the other processes cannot be met at 10.77.0.1:29511")
    assert not (tmp_path / "run" / "base").exists()


@pytest.mark.slow
def test_torchrun_on_two_hosts_until_the_wire_is_cut(hosts: tuple[Host, Host], lesson: Lesson, tmp_path: Path) -> None:
    """The agents end as well; one host goes on alone with two processes."""
    out, steps = tmp_path / "run", 400
    words = lesson.words(out, "--resume", "-s", "parallel=fsdp2", "-s", f"steps={steps}", "-s", "keep_checkpoints=99")
    nodes = ["--nnodes", 2, "--nproc-per-node", 1, "--rdzv-id", "7", "--rdzv-backend", "c10d"]
    nodes += ["--rdzv-endpoint", f"{hosts[0].address}:29512", "-m", "selftaught", *words]
    agents = [
        torchrun(
            *nodes, environment={**SHORT, "GLOO_SOCKET_IFNAME": host.wire}, before=["ip", "netns", "exec", host.name]
        )
        for host in hosts
    ]
    try:
        end = time.monotonic() + 120
        while not (out / "checkpoints" / "step-000004").exists():
            assert all(agent.poll() is None for agent in agents) and time.monotonic() < end
            time.sleep(0.01)
        hosts[1].cut()
        for rank, agent in enumerate(agents):
            _, complained = agent.communicate(timeout=180)
            assert agent.returncode == 1
            assert complained.count(LOST) == 1, (rank, complained)
    finally:
        for agent in agents:
            agent.kill()
    done = int(max((out / "checkpoints").glob("step-*")).name.removeprefix("step-"))
    alone = torchrun("--standalone", "--nproc-per-node", 2, "-m", "selftaught", *words)
    said, complained = alone.communicate(timeout=300)
    assert alone.returncode == 0, complained
    assert 4 <= done < steps
    report = json.loads(said)
    assert [point["step"] for point in report["runs"][-1]["loss"]] == list(range(1, steps + 1))
