"""The paper's suite of previous tasks, and any other, by lm-evaluation-harness.

The harness is an extra: `pip install "selftaught[harness]"`. It is given our own model object, so that what is
measured is what is taught: only safetensors are read and no code that comes with a model is run. `mmlu_offline`
needs no network: its questions are those that the harness's own package carries as examples.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

from selftaught.errors import ConfigError, DataError

# TruthfulQA as mc1: the paper's 47.9 for the base is what others measure there (mc2 gives 65).
PRIOR_TASKS = ("hellaswag", "truthfulqa_mc1", "mmlu", "ifeval", "winogrande", "humaneval")
METRICS = {  # what the paper averages; other tasks give their first
    "ifeval": "prompt_level_strict_acc,none",
    "humaneval": "pass@1,create_test",
}
CHAT_TASKS = ("ifeval",)  # instructions are asked in the model's own template; the others' texts are completed
CODE_TASKS = ("humaneval",)  # what the model writes is run
OFFLINE_TASK = "mmlu_offline"
LETTERS = "ABCDE"

QUESTION = re.compile(r"(?:\A|\n\n)Q:(.*?)\nA:(.*?)(?=\n\nQ:|\Z)", re.DOTALL)
ANSWER = re.compile(r"[Tt]he answer is:? \(?([A-E])\)?")


def run_harness(
    model: str | Path,
    tasks: Sequence[str] = PRIOR_TASKS,
    limit: int | None = None,
    batch_size: int | str = 8,
    run_code: bool = False,
    dtype: str = "auto",
) -> dict[str, Any]:
    """Evaluates a model by lm-evaluation-harness.

    Args:
        model: an embedded name, a model's directory, a run's folder, or a hub id.
        tasks: names that the harness knows, and `mmlu_offline`.
        limit: only so many questions of each task (of each subject, for mmlu).
        batch_size: texts at once, or "auto" for as many as a GPU takes.
        run_code: allow tasks that run what the model writes.
        dtype: "auto", "bfloat16" or "float32".

    Returns:
        {"model", "tasks": {name: {"metric", "value", "stderr", "questions"}}, "average", "seconds", "limit",
        "versions"}; values are shares, and the average is over the tasks.

    Raises:
        ConfigError: the harness is not installed, a task is unknown or may not be run.
        DataError: a task's data cannot be had.
        ModelError: the model cannot be loaded.
    """
    tasks = list(dict.fromkeys(tasks))
    harness = _installed()
    _check_tasks(tasks, run_code)
    manager = import_module("lm_eval.tasks").TaskManager()
    unknown = [task for task in tasks if task not in manager.all_tasks and task != OFFLINE_TASK]
    if unknown:
        raise ConfigError(f"{unknown[0]}: no task of the harness; `lm-eval ls tasks` lists them, and {OFFLINE_TASK}")
    lm = _language_model(model, batch_size, dtype)
    found: dict[str, Any] = {}
    begun = time.monotonic()
    for chat in (False, True):
        group = [offline_task() if task == OFFLINE_TASK else task for task in tasks if (task in CHAT_TASKS) is chat]
        if group:
            found |= _evaluate(harness, lm, group, manager, limit, chat, run_code)
    scores = {task: _score(task, found.get(task, {})) for task in tasks}
    return {
        "model": str(model),
        "tasks": scores,
        "average": sum(score["value"] for score in scores.values()) / len(scores),
        "seconds": round(time.monotonic() - begun, 1),
        "limit": limit,
        "versions": {"lm_eval": harness.__version__},
    }


def offline_task() -> dict[str, Any]:
    """The harness's configuration of `mmlu_offline`: MMLU's form, by the likelihood of each letter."""
    return {
        "task": OFFLINE_TASK,
        "custom_dataset": _offline_dataset,
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}",
        "doc_to_choice": "letters",
        "doc_to_target": "answer",
        "num_fewshot": 0,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }


def offline_questions() -> list[dict[str, Any]]:
    """MMLU questions from the installed harness: those it shows as worked examples, without the working.

    Returns:
        Rows of "subject", "text" (the prompt), "letters" and "answer" (the index of the right one).

    Raises:
        DataError: the installed harness does not carry them.
    """
    from selftaught.files import read_json

    path = Path(str(files("lm_eval").joinpath("tasks/mmlu/flan_cot_fewshot/_cot_prompts.json")))
    if not path.is_file():
        raise DataError(f"{path}: this lm-eval does not carry these questions; install lm-eval 0.4.9 to 0.4.13")
    rows = []
    for subject, text in read_json(path).items():
        for question, working in QUESTION.findall(text):
            rows.append(_offline_row(subject.replace("_", " "), question, working))
    return rows


def _offline_row(subject: str, question: str, working: str) -> dict[str, Any]:
    stem, *options = re.split(r"\s*\(([A-E])\)\s*", question.strip())
    letters, texts = options[::2], options[1::2]
    answer = ANSWER.findall(working)
    if letters != list(LETTERS[: len(letters)]) or not letters or not answer:
        raise DataError(f"lm-eval's question {stem[:60]!r} is not in the form that we know; install lm-eval 0.4.13")
    lines = [stem, *(f"{letter}. {text}" for letter, text in zip(letters, texts, strict=True)), "Answer:"]
    intro = f"The following are multiple choice questions (with answers) about {subject}."
    return {
        "subject": subject,
        "text": f"{intro}\n\n" + "\n".join(lines),
        "letters": letters,
        "answer": letters.index(answer[-1]),
    }


def _offline_dataset(**metadata: Any) -> Any:
    datasets = import_module("datasets")
    return {"test": datasets.Dataset.from_list(offline_questions())}


# ------------------------------------------------------------------------------------ the harness itself


def _installed() -> Any:
    try:
        harness = import_module("lm_eval")
        import_module("lm_eval.models.huggingface")
    except ImportError as error:
        raise ConfigError(
            'lm-eval is not installed; run: pip install "selftaught[harness]" '
            f"(in a checkout: pip install -c constraints.txt -e '.[harness]') ({error})"
        ) from error
    return harness


def _check_tasks(tasks: Sequence[str], run_code: bool) -> None:
    if not tasks:
        raise ConfigError("no tasks are named; name some, for example --tasks mmlu,ifeval")
    runs_code = [task for task in tasks if task.startswith(CODE_TASKS)]
    if runs_code and not run_code:
        raise ConfigError(
            f"{runs_code[0]}: runs the code that the model writes; allow it by --run-code where nothing can be "
            "harmed, or leave the task out"
        )


def _language_model(model: str | Path, batch_size: int | str, dtype: str) -> Any:
    """Our model as the harness's; it pads and truncates on the left, as it does for its own."""
    from selftaught.models.load import load_model

    loaded = load_model(model, dtype=dtype)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # else it warns of each setting that we chose
    evaluator: Any = import_module("lm_eval.evaluator")
    evaluator.get_git_commit_hash = lambda: None  # else git complains where there is no repository
    backend = import_module("lm_eval.models.huggingface").HFLM
    return backend(pretrained=loaded.plain_model, tokenizer=loaded.tokenizer, batch_size=batch_size)


def _evaluate(
    harness: Any, lm: Any, tasks: Sequence[Any], manager: Any, limit: int | None, chat: bool, run_code: bool
) -> dict[str, Any]:
    """The harness's own results, by task."""
    if run_code:
        os.environ["HF_ALLOW_CODE_EVAL"] = "1"  # asked for by the metric that runs the code
    try:
        results = harness.simple_evaluate(
            model=lm,
            tasks=list(tasks),
            task_manager=manager,
            limit=limit,
            apply_chat_template=chat,
            log_samples=False,
            confirm_run_unsafe_code=run_code,
        )
    except (OSError, ValueError, RuntimeError) as error:  # a data set that cannot be fetched raises any of these
        names = ", ".join(str(task["task"]) if isinstance(task, dict) else task for task in tasks)
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{names}: the harness failed ({reason}); its data sets come from the hub, so check the network, "
            f"or try {OFFLINE_TASK}"
        ) from error
    counts = results.get("n-samples", {})
    members = results.get("group_subtasks", {})

    def questions(task: str) -> int:
        below = members.get(task, [])
        return sum(map(questions, below)) if below else int(counts.get(task, {}).get("effective", 0))

    return {task: {**values, "questions": questions(task)} for task, values in results["results"].items()}


def _score(task: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """A task's one figure."""
    metrics = [name for name, value in values.items() if "," in name and "_stderr" not in name]
    metric = METRICS.get(task) or next((name for name in metrics if name.startswith("acc,")), (metrics or [""])[0])
    if not isinstance(values.get(metric), (int, float)):
        raise DataError(
            f"{task}: the harness gave no one figure for it ({', '.join(metrics) or 'none at all'}); "
            "if it stands for several tasks, name them"
        )
    name, _, filtered = metric.partition(",")
    stderr = values.get(f"{name}_stderr,{filtered}")
    return {
        "metric": name,
        "value": float(values[metric]),
        "stderr": float(stderr) if isinstance(stderr, (int, float)) else None,
        "questions": values["questions"],
    }
