"""Learning from use as a service: what it prints, what it survives, and how it ends."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from command import run, start


@pytest.fixture(scope="module")
def root(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("use") / "work"
    assert run("init", root, "-m", tiny_model).code == 0
    return root


def test_the_service_does_nothing_where_nothing_is_new_and_ends_when_told(root: Path) -> None:
    running = start("learn", "--interactions", "--every", "24h", "-w", root)
    running.wait_until(lambda: "nothing to teach" in running.said)
    running.signal(signal.SIGTERM)
    outcome = running.wait()
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == "nothing to teach: 0 new rows, and a lesson needs 8\nended\n"
    assert run("log", "--json", "-w", root).json["head"] == "v0"


def test_a_look_that_fails_does_not_end_the_service(root: Path) -> None:
    path = root / "selftaught.toml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text + '[interactions]\nredact = ["nobody"]\n', encoding="utf-8")
    running = start("learn", "--interactions", "--every", "24h", "-w", root)
    running.wait_until(lambda: "nobody" in running.complained)
    running.signal(signal.SIGTERM)
    outcome = running.wait()
    path.write_text(text, encoding="utf-8")
    assert (outcome.code, outcome.out) == (0, "ended\n")
    assert outcome.err.splitlines() == [
        "selftaught: interactions.redact: unknown 'nobody'; use email, phone or package.module:function"
    ]


def test_a_service_that_cannot_begin_says_why(tmp_path: Path) -> None:
    line = run("learn", "--interactions", "--every", "1d", "-w", tmp_path).error_line
    assert "not in a workspace" in line
