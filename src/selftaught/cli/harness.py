"""`selftaught harness`: tasks of lm-evaluation-harness."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from selftaught.cli.options import AnyModel, located


def harness(
    model: Annotated[str, typer.Argument(help=AnyModel)],
    tasks: Annotated[
        str | None,
        typer.Option(help="Names, with commas between; the paper's suite if left out. mmlu_offline needs no hub."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many questions of each task.")] = None,
    batch_size: Annotated[str, typer.Option(help="Texts at once; auto finds what a GPU takes.")] = "8",
    run_code: Annotated[
        bool, typer.Option("--run-code", help="Allow humaneval, which runs the code that the model writes.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines on standard output.")] = False,
) -> None:
    """Ask a model the tasks of lm-evaluation-harness: what it still can do (an extra: docs/paper.md)."""
    from selftaught.errors import ConfigError
    from selftaught.evaluation.harness import PRIOR_TASKS, run_harness

    if batch_size != "auto" and not (batch_size.isdecimal() and int(batch_size)):
        raise ConfigError(f"--batch-size {batch_size}: give a number from 1 up, or auto")
    names = [name.strip() for name in tasks.split(",") if name.strip()] if tasks is not None else PRIOR_TASKS
    size = batch_size if batch_size == "auto" else int(batch_size)
    found = run_harness(located(model), names, limit, size, run_code)
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for name, score in found["tasks"].items():
        error = f" ± {score['stderr']:.1%}" if score["stderr"] is not None else ""
        print(f"{name:<16} {score['value']:6.1%}{error}  ({score['metric']}, {score['questions']} questions)")
    if len(found["tasks"]) > 1:
        print(f"{'average':<16} {found['average']:6.1%}")
    print(f"{found['seconds']:.0f} s")
