"""lm-evaluation-harness as an extra: what is refused before it starts, how results are read, and real runs of it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from selftaught.cli import main
from selftaught.errors import ConfigError, DataError
from selftaught.evaluation import harness
from selftaught.evaluation.harness import PRIOR_TASKS, run_harness

needs_harness = pytest.mark.skipif(find_spec("lm_eval") is None, reason="lm-eval is not installed")


def test_without_the_extra_one_line_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)  # as if it were not there
    monkeypatch.setattr(sys, "argv", ["selftaught", "harness", "smollm2-135m", "--tasks", "mmlu_offline"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('selftaught: lm-eval is not installed; run: pip install "selftaught[harness]"')


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "_installed", lambda: None)


@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize(
    ("tasks", "message"),
    [([], "no tasks are named"), (["humaneval"], "runs the code"), (["humaneval_plus"], "--run-code")],
)
def test_tasks_that_may_not_be_run(tasks: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_harness("smollm2-135m", tasks)


@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize("size", ["0", "-1", "many", "1.5", "²"])
def test_a_batch_size_that_is_no_number(monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    from selftaught.cli.harness import harness as command

    with pytest.raises(ConfigError, match="give a number from 1 up, or auto"):
        command("smollm2-135m", batch_size=size)


def test_the_one_figure_of_a_task() -> None:
    found = {
        "alias": "x",
        "acc_norm,none": 0.8,
        "acc_norm_stderr,none": 0.02,
        "acc,none": 0.6,
        "acc_stderr,none": 0.01,
        "questions": 50,
    }
    assert harness._score("hellaswag", found) == {"metric": "acc", "value": 0.6, "stderr": 0.01, "questions": 50}
    strict = {"inst_level_strict_acc,none": 0.7, "prompt_level_strict_acc,none": 0.5, "questions": 9}
    strict |= {"prompt_level_strict_acc_stderr,none": "N/A"}
    expected = {"metric": "prompt_level_strict_acc", "value": 0.5, "stderr": None, "questions": 9}
    assert harness._score("ifeval", strict) == expected
    code = {"pass@1,create_test": 0.25, "pass@1_stderr,create_test": 0.1, "questions": 164}
    assert harness._score("humaneval", code)["value"] == 0.25
    other = {"bleu,none": 3.0, "questions": 2}
    assert harness._score("other", other)["metric"] == "bleu"
    with pytest.raises(DataError, match="gave no one figure"):
        harness._score("truthfulqa", {})


def test_an_offline_question_is_put_in_mmlus_form() -> None:
    question = " Which gas?\nIt burns.\n(A) helium (B) hydrogen\n(C) argon (D) f(x) = (n)"
    working = " Let's think. The answer is not (A). The answer is (B)."
    row = harness._offline_row("college chemistry", question, working)
    assert row["text"] == (
        "The following are multiple choice questions (with answers) about college chemistry.\n\n"
        "Which gas?\nIt burns.\nA. helium\nB. hydrogen\nC. argon\nD. f(x) = (n)\nAnswer:"
    )
    assert (row["letters"], row["answer"]) == (["A", "B", "C", "D"], 1)
    for broken in ("No options?", "Which? (A) a (C) c"):
        with pytest.raises(DataError, match="not in the form that we know"):
            harness._offline_row("x", broken, working)
    with pytest.raises(DataError, match="not in the form that we know"):
        harness._offline_row("x", question, "It is unknown.")


# -------------------------------------------------------------------------------------- the real harness


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "selftaught", "harness", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@needs_harness
def test_the_offline_questions() -> None:
    rows = harness.offline_questions()
    assert len(rows) == 282
    assert len({row["text"] for row in rows}) == 281  # one is there twice
    assert len({row["subject"] for row in rows}) == 57
    assert [len(row["letters"]) for row in rows if len(row["letters"]) != 4] == [5]


@needs_harness
def test_the_papers_tasks_are_the_harnesss() -> None:
    from lm_eval.tasks import TaskManager

    assert set(PRIOR_TASKS) <= set(TaskManager().all_tasks)


@needs_harness
def test_a_small_model_by_the_command(tiny_model: Path) -> None:
    done = run(str(tiny_model), "--tasks", "mmlu_offline", "--limit", "4", "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    score = found["tasks"]["mmlu_offline"]
    assert (score["metric"], score["questions"], found["limit"]) == ("acc", 4, 4)
    assert found["average"] == score["value"] in (0, 0.25, 0.5, 0.75, 1)
    assert score["stderr"] >= 0


@needs_harness
def test_an_unknown_task_is_one_line(tiny_model: Path) -> None:
    done = run(str(tiny_model), "--tasks", "no_such_task")
    assert done.returncode == 2
    assert done.stderr.startswith("selftaught: no_such_task: no task of the harness")
    assert len(done.stderr.splitlines()) == 1


@needs_harness
@pytest.mark.slow
def test_the_real_model_answers_all_offline_questions() -> None:
    found = run_harness("smollm2-135m", ["mmlu_offline"])
    score = found["tasks"]["mmlu_offline"]
    assert score["questions"] == 282
    assert 0.15 < score["value"] < 0.35  # a model of its size is at chance, which is 25%
