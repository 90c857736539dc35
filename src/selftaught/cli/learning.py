"""How a lesson from documents is asked for, and how the end of a run is shown."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args

from selftaught.cli.options import HERE, located, print_json
from selftaught.errors import ConfigError


def check_alone(data: str | None, override: Sequence[str], reason: str, workspace: Path, model: str | None) -> None:
    """Documents are learned outside of a workspace, and without another data set.

    Raises:
        ConfigError: something else was asked for as well.
    """
    from selftaught.continual.workspace import Workspace

    if data is not None:
        raise ConfigError(f"{data!r} and --documents: give one of the two; questions of your own go to --questions")
    if workspace != HERE or (model is None and Workspace.find(HERE) is not None):
        raise ConfigError(
            "--documents: in a workspace, make a skill of them: selftaught skills add NAME --documents FOLDER; "
            "or name the --model to teach outside of it"
        )
    if override or reason:
        raise ConfigError("--override and --reason: are of a lesson in a workspace; with --documents there is no gate")


def check_data(data: str | None, about_documents: Mapping[str, object]) -> str:
    """The data set, which there must be where there are no documents.

    Args:
        data: what was named.
        about_documents: options that belong to documents, with what was given to them.

    Raises:
        ConfigError: there is none, or such an option was given.
    """
    if alone := [name for name, value in about_documents.items() if value]:
        raise ConfigError(f"{alone[0]}: is about documents; name them with --documents")
    if data is None:
        raise ConfigError("nothing to learn: name a data set (or a skill, in a workspace), or give --documents")
    return data


def named(documents: str) -> Path:
    """The documents' place. An empty name, as of a variable that is not set, would be the current folder.

    Raises:
        ConfigError: the name is empty.
    """
    if not documents.strip():
        raise ConfigError('--documents: names nothing; for the current folder write "."')
    return Path(documents)


def learn_documents(
    documents: str,
    model: str,
    out: Path,
    config: Any,
    generator: str | None,
    questions: str | None,
    beside: Sequence[str],
    resume: bool,
    processes: int,
    as_json: bool,
    judge: str | None = None,
) -> None:
    """Learns from documents, and prints what was read, asked, learned and forgotten.

    Raises:
        ConfigError: no folder is named, or an unknown method.
    """
    from selftaught.cli.progress import Progress
    from selftaught.config import METHOD_LABELS, Method
    from selftaught.continual.documents import learn_documents as run

    folder = named(documents)
    unknown = [name for name in beside if name not in get_args(Method) or name == config.method]
    if unknown:
        raise ConfigError(f"--beside: {unknown[0]!r} is no other method; use some of {', '.join(get_args(Method))}")
    others = cast(Sequence[Method], tuple(dict.fromkeys(beside)))
    labels = {name: METHOD_LABELS[name] for name in (*others, config.method)}
    with Progress({"base": "base", **labels}, quiet=as_json) as progress:
        report = run(
            *(folder, model, out, config, located(generator or "self"), questions, others, resume, progress, processes),
            judge=judge,
        )
    if not as_json:
        _show_questions(report, out)
    question = next((item["question"] for item in report["answers"]), "Hello!")
    show(report, out, as_json, out if config.teaches else None, question)


def learn_data(data: str, model: str, out: Path, config: Any, resume: bool, processes: int, as_json: bool) -> None:
    """Learns from a data set outside of a workspace, and prints what was learned and forgotten."""
    from selftaught.cli.progress import Progress
    from selftaught.config import METHOD_LABELS
    from selftaught.continual import learn as run

    with Progress({"base": "base", config.method: METHOD_LABELS[config.method]}, quiet=as_json) as progress:
        report = run(data, model, out, config, resume, progress, processes)
    question = next((item["question"] for item in report["answers"]), "Hello!")
    show(report, out, as_json, out if config.teaches else None, question)


def dry_run(data: Any, model: str, out: Path | None, config: Any, resume: bool, processes: int, as_json: bool) -> None:
    """Prints what `learn` would do with a data set outside of a workspace, or (without `out`) with a skill's rows."""
    from selftaught.continual.dry_run import dry_run as run

    found = run(data, model, out, config, resume, processes)
    if as_json:
        print_json(found)
        return
    longest, sizes, settings = found["longest"], found["model"], found["config"]
    print(f"{found['taught']} rows to teach, {found['asked']} more to ask; all fit.")
    print(
        f"Longest prompt: {longest['prompt']} tokens, the teacher's {longest['teacher_prompt'] or 'not used'}; longest "
        f"demonstration: {longest['demonstration']}; a completion ends at {longest['completion']}."
    )
    print(f"{sizes['path']}: {sizes['parameters']:,} weights; {sizes['trained']:,} numbers are trained.")
    if found["steps"]:
        print(
            f"{found['steps']} steps of {found['batch_size']} completions by {settings['method']}, peak learning rate "
            f"{settings['learning_rate']:g}, a checkpoint every {settings['checkpoint_every']} steps."
        )
    where = ", ".join(f"{name} ({number})" for name, number in found["machines"].items())
    print(f"Processes: {found['processes']}" + (f", parallel={settings['parallel']}, on {where}" if where else ""))
    print(f"Would write: {', '.join(found['writes']) or 'a version in the workspace, if the gate lets it in'}")
    print("Nothing was written; whether it fits in memory was not looked at.")


def _show_questions(report: dict[str, Any], out: Path) -> None:
    """What became of the questions, and the strict and lenient accuracies."""
    from rich.console import Console

    from selftaught.reports.judging import judging_lines
    from selftaught.reports.tables import knowledge_table

    console = Console(highlight=False)
    reasons = dict(report["questions"])
    if reasons:
        kept, neighbours = reasons.pop("kept"), reasons.pop("neighbours")
        console.print(
            f"Questions: {kept} kept, {neighbours} about neighbours made of them, in {out / 'questions.jsonl'}.",
            markup=False,
            soft_wrap=True,
        )
        told = "; ".join(f"{count} × {reason}" for reason, count in sorted(reasons.items(), key=lambda pair: -pair[1]))
        if told:
            console.print(f"  Rejected (rejected.jsonl): {told}.", markup=False, soft_wrap=True)
    console.print(knowledge_table(report))
    for line in judging_lines(report):
        console.print(line, markup=False, soft_wrap=True)


def show(report: dict[str, Any], out: Path, as_json: bool, taught: Path | None, question: str) -> None:
    """The end of a run: the table, the checks, where things lie, and how to ask."""
    if as_json:
        print_json(report)
        return
    from rich.console import Console

    from selftaught.reports import headline_table, lift_line

    console = Console()
    if report["lift"]:
        console.print(lift_line(report["lift"]), markup=False)
    console.print(headline_table(report))
    for comparison in report["comparisons"]:
        console.print(comparison["statement"], markup=False)
    for row in report["checks"]:
        mark = "[green]✓[/]" if row["met"] else "[red]✗[/]"
        console.print(f"{mark} {row['name']}: {row['value']} (target {row['target']})")
    console.print(f"Report: {out / 'report.html'} (and report.json)", markup=False, soft_wrap=True)
    if taught is None:
        return
    shown = json.dumps(question, ensure_ascii=False)
    console.print(
        f"The taught model is in {taught / 'model'}; ask it: selftaught ask {shlex.quote(str(taught))} {shown}",
        markup=False,
        soft_wrap=True,
    )
