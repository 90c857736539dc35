"""Several processes of one job: what they exchange, and how they end."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import process_work
import pytest
import torch

from selftaught import errors, processes
from selftaught.errors import TrainingError
from selftaught.processes import ALONE, MAX_PROCESSES, ProcessGroup, num_processes, process_group
from selftaught.runtime import num_cores

KINDS = ["SelftaughtError", "DataError", "ConfigError", "ModelError", "TrainingError", "ArtifactError"]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# ------------------------------------------------------------------------------------------ exchange


@pytest.mark.parametrize("size", [1, 2, 3])
def test_everyone_gets_everything_in_order_of_rank(size: int) -> None:
    with process_group(size, process_work.exchange) as group:
        everyones = process_work.exchange(group)
    assert len(everyones) == size
    for found in everyones:
        assert found == everyones[0]
        for number in (0, 1, 2, 7, 8):
            assert found[f"merged {number}"] == [item * item for item in range(number)]
        assert found["shares"] == [list("abcdefg"[rank::size]) for rank in range(size)]
        assert found["sum"] == sum(range(1, size + 1))
        assert found["sums"] == [sum(range(size)), 0.5 * size, -size]
        assert found["large"] == [hashlib.sha256(bytes([rank]) * 10_000_000).hexdigest() for rank in range(size)]
        assert found["nested"] == [{"rank": (rank, None), "text": "ä\n\x00"} for rank in range(size)]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_memory_is_the_same_in_every_process(size: int) -> None:
    with process_group(size, process_work.share_memory) as group:
        everyones = process_work.share_memory(group)
    expected = {
        "untouched": True,
        "one": [*map(float, range(1, size + 1)), 0.0, 0.0],
        "two": [0.5] * 3,
        "later": 1.0,
        "bytes": 0 if size == 1 else 4 * (size + 2) + 2 * 3,
    }
    assert everyones == [expected] * size


def test_each_is_a_process_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    with process_group(3, process_work.introduce) as group:
        assert torch.get_num_threads() == max(1, num_cores() // 3)
        found = process_work.introduce(group)
    assert torch.get_num_threads() == threads
    assert [(one["rank"], one["size"], one["first"]) for one in found] == [(0, 3, True), (1, 3, False), (2, 3, False)]
    assert found[0]["pid"] == os.getpid() and len({one["pid"] for one in found}) == 3
    assert len({one["session"] for one in found}) == 3, "Ctrl-C in a terminal does not reach them"
    assert {one["threads"] for one in found[1:]} == {str(max(1, num_cores() // 3))}
    assert not any(alive(one["pid"]) for one in found[1:])
    captured = capfd.readouterr()
    assert captured.err.count("noise on standard output") == 2, "of the children"
    assert captured.out == "noise on standard output\n"


def test_what_is_printed_gets_between_no_values(capfd: pytest.CaptureFixture[str]) -> None:
    with process_group(2, process_work.print_much) as group:
        assert group.gather(0) == [0, 1]
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.count("noise") == 200


def test_one_process_is_alone_and_starts_nothing() -> None:
    with process_group(1, process_work.kill, 0) as group:
        assert group is ALONE
    assert (ALONE.rank, ALONE.size, ALONE.first) == (0, 1, True)
    assert ALONE.gather("x") == ["x"] and ALONE.share([1, 2]) == [1, 2] and ALONE.merged([[1, 2]]) == [1, 2]
    assert ALONE.sum(3) == 3 and ALONE.sum(3, 4.5) == [3, 4.5]
    memory = ALONE.shared_memory(4, torch.bfloat16)
    assert memory.dtype == torch.bfloat16 and memory.tolist() == [0.0] * 4


@pytest.mark.parametrize("size", range(1, 6))
@pytest.mark.parametrize("number", range(8))
def test_shares_part_the_items_evenly_and_come_back_in_order(number: int, size: int) -> None:
    groups = [ProcessGroup(rank, size) for rank in range(size)]
    shares = [group.share(range(number)) for group in groups]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert all(group.merged(shares) == list(range(number)) for group in groups)


def test_there_are_no_more_processes_than_rows_and_cores() -> None:
    assert num_processes(0, 1) == 1
    assert all(1 <= num_processes(0, size) <= min(size, num_cores()) for size in (2, 3, 16, 1000))
    assert num_processes(3, 1) == 3, "what is asked for is done"


def test_there_are_no_more_processes_than_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "num_cores", lambda: 64)

    def found(gib: float, weight_bytes: int) -> int:
        monkeypatch.setattr(processes, "memory_gib", lambda: gib)
        return num_processes(0, 1000, weight_bytes)

    small, large = 270_000_000, 15_000_000_000  # files of models with 135 million and 7.5 billion weights
    assert found(1000, small) == found(0, small) == found(0, large) == MAX_PROCESSES, "0 is a system that tells nothing"
    assert found(2, small) == found(64, large) == 1
    by_memory = [found(gib, small) for gib in range(1, 40)]
    assert by_memory == sorted(by_memory) and set(by_memory) == set(range(1, MAX_PROCESSES + 1))
    by_size = [found(30, size) for size in range(0, 4_000_000_000, 100_000_000)]
    assert by_size == sorted(by_size, reverse=True) and by_size[0] == MAX_PROCESSES and by_size[-1] == 1


@pytest.mark.parametrize("reason", ["cuda", "mps", "windows"])
def test_where_memory_cannot_be_shared_there_is_one(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason == "windows":
        monkeypatch.setattr(processes.sys, "platform", "win32")
    else:
        monkeypatch.setattr(torch.cuda if reason == "cuda" else torch.backends.mps, "is_available", lambda: True)
    assert num_processes(0, 16) == num_processes(1, 16) == 1
    with pytest.raises(errors.ConfigError, match="processes: 2 cannot share"):
        num_processes(2, 16)


# ---------------------------------------------------------------------------------------------- ends


def test_all_finish_their_work_before_the_group_ends(tmp_path: Path) -> None:
    with process_group(3, process_work.meet, str(tmp_path)) as group:
        process_work.meet(str(tmp_path), group)
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1", "2"}


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_of_a_child_is_raised_where_the_first_waits(kind: str) -> None:
    with pytest.raises(errors.SelftaughtError) as raised, process_group(2, process_work.fail, kind, 1) as group:
        process_work.fail(kind, 1, group)
    assert type(raised.value).__name__ == kind
    assert str(raised.value) == f"this is a {kind}"


def test_an_error_of_one_child_ends_the_others() -> None:
    with pytest.raises(errors.DataError), process_group(3, process_work.fail, "DataError", 2) as group:
        process_work.fail("DataError", 2, group)


def test_an_error_of_a_child_is_raised_at_the_end_at_the_latest() -> None:
    with pytest.raises(errors.ModelError), process_group(2, process_work.fail, "ModelError", 1) as group:
        group.wait()


def test_a_defect_in_a_child_is_told_and_shown(capfd: pytest.CaptureFixture[str]) -> None:
    with (
        pytest.raises(TrainingError, match="met an error: ValueError: this is a Defect"),
        process_group(2, process_work.fail, "Defect", 1) as group,
    ):
        process_work.fail("Defect", 1, group)
    shown = capfd.readouterr().err
    assert shown.startswith("Traceback") and "ValueError: this is a Defect" in shown


@pytest.mark.parametrize("rank", [1, 2])
def test_a_killed_child_is_told_in_one_line(rank: int, capfd: pytest.CaptureFixture[str]) -> None:
    with (
        pytest.raises(TrainingError, match="a training process ended unexpectedly, killed perhaps") as raised,
        process_group(3, process_work.kill, rank) as group,
    ):
        process_work.kill(rank, group)
    assert "\n" not in str(raised.value) and "--resume" in str(raised.value)
    assert capfd.readouterr().err == ""


@pytest.fixture
def started() -> Iterator[list[int]]:
    """Process ids of children, none of which may be there in the end."""
    pids: list[int] = []
    yield pids
    assert pids and not any(alive(pid) for pid in pids)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, TrainingError])
def test_an_error_of_the_first_ends_all_at_once(error: type[BaseException], started: list[int]) -> None:
    began = time.monotonic()
    with pytest.raises(error), process_group(3, process_work.linger, 60.0) as group:
        started += process_work.linger(60.0, group)
        raise error
    assert time.monotonic() - began < 20


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_children_at_work_end_when_the_first_is_killed() -> None:
    """Also while they wait for nothing from it."""
    code = (
        "import time, process_work\n"
        "from selftaught.processes import process_group\n"
        "with process_group(3, process_work.linger, 60.0) as group:\n"
        "    print(*process_work.linger(60.0, group), flush=True)\n"
        "    time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        children = [int(word) for word in first.stdout.readline().split()]
        assert len(children) == 2
        first.kill()
    end = time.monotonic() + 10
    while left := [pid for pid in children if running(pid)]:
        assert time.monotonic() < end, left
        time.sleep(0.05)


def running(pid: int) -> bool:
    """Zombies, for whom nobody waits any more, are not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
