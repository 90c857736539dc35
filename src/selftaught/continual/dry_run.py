"""What a run would do: all that can be checked without the model's weights is, and nothing is written."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selftaught.config import LearnConfig
from selftaught.continual.jobs import ADAPTER_FOLDER, CHECKPOINT_FOLDER, MODEL_FOLDER
from selftaught.continual.learn import check_request, run_request
from selftaught.processes import ProcessGroup
from selftaught.types import Example


def dry_run(
    data: str | Path | Sequence[Example],
    model: str = "smollm2-135m",
    out: str | Path | None = "runs/learn",
    config: LearnConfig | None = None,
    resume: bool = False,
    processes: int = 0,
) -> dict[str, Any]:
    """Checks recipe, data, the model's configuration and tokenizer, lengths, the run's folder and the processes.

    Of a model on the hub all but the weights is fetched. Processes of torchrun meet, so that a wrong address is found.

    Args:
        data: a file, a hub data set, or examples.
        model: what would be taught.
        out: the run's folder; None is a lesson, whose place is in its workspace.
        config: how.
        resume: go on with the run in `out`.
        processes: how many would train it together.

    Returns:
        {"taught", "asked": rows; "longest": {"prompt", "teacher_prompt", "demonstration", "completion"}: tokens;
        "model": {"name", "path", "parameters", "trained"}; "steps", "batch_size"; "processes"; "machines": {name:
        processes}, of torchrun's; "writes": paths; "config": with everything filled in}

    Raises:
        SelftaughtError: as `learn` would.
    """
    from selftaught.data import data_hash, load_examples
    from selftaught.distributed import group_size, launched
    from selftaught.evaluation.scorers import check_scorers
    from selftaught.models.load import load_outline
    from selftaught.models.resolve import weight_bytes
    from selftaught.train.distributed_optim import check_together
    from selftaught.train.rows import prepare

    config, model = config or LearnConfig(), str(model)
    check_together(config, launched())
    examples = load_examples(data) if isinstance(data, (str, Path)) else list(data)
    check_scorers(examples)
    if out is not None:
        check_request(Path(out), run_request(model, data_hash(examples), config), resume)
    outline = load_outline(model)
    config, rows = prepare(examples, outline, config)
    parameters, trained = _sizes(outline, config)
    size = group_size(processes, min(config.batch_size, len(rows)), weight_bytes(str(outline.path)))
    return {
        "taught": len(rows),
        "asked": sum(example.split == "test" for example in examples),
        "longest": {
            "prompt": max(len(row.prompt) for row in rows),
            "teacher_prompt": max(len(row.teacher_prompt) for row in rows),
            "demonstration": max(len(row.target) for row in rows),
            "completion": config.rollout_limit,
        },
        "model": {"name": model, "path": str(outline.path), "parameters": parameters, "trained": trained},
        "steps": config.total_steps if config.teaches else 0,
        "batch_size": config.batch_size,
        "processes": size,
        "machines": _machines(),
        "writes": _written(None if out is None else Path(out), config),
        "config": config.model_dump(mode="json"),
    }


def _sizes(outline: Any, config: LearnConfig) -> tuple[int, int]:
    """Numbers of a model's weights, and of those that are trained, adapters among them."""
    from selftaught.models.adapters import trainable

    parameters = sum(weight.numel() for weight in outline.model.parameters())
    if not config.teaches:
        return parameters, 0
    student = trainable(outline, config).model
    return parameters, sum(weight.numel() for weight in student.parameters() if weight.requires_grad)


def _written(out: Path | None, config: LearnConfig) -> list[str]:
    """Where the results of a run would be."""
    if out is None:
        return []
    taught = [MODEL_FOLDER, *([ADAPTER_FOLDER] if config.weights.kind == "lora" else []), CHECKPOINT_FOLDER]
    return [str(out / name) for name in (*(taught if config.teaches else ()), "report.html", "report.json")]


def _machines() -> dict[str, int]:
    """How many processes torchrun has started on each machine; all meet, and exchange a word.

    Raises:
        ConfigError: they cannot be met, or there are more of them than GPUs.
        TrainingError: one is gone.
    """
    from selftaught.distributed import launched, launched_group

    if not launched():
        return {}
    with launched_group(_introduced) as group:
        return _introduced(group)


def _introduced(group: ProcessGroup) -> dict[str, int]:
    return dict(Counter(group.gather(platform.node())))
