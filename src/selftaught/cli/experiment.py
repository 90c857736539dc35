"""Commands that measure: whole experiments, ablations, or two models side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from selftaught.cli.options import (
    AnyModel,
    AsJson,
    Model,
    Overrides,
    Processes,
    Recipe,
    Resume,
    located,
    print_json,
)

experiment = typer.Typer(no_args_is_help=True, help="Experiments on the built-in skills.")


@experiment.callback()
def _group() -> None:
    """Experiments on the built-in skills."""


@experiment.command()
def sequential(
    model: Model = "smollm2-135m",
    out: Annotated[Path, typer.Option(help="Folder for models and report.")] = Path("runs/sequential"),
    fast: Annotated[
        bool, typer.Option("--fast", help="One seed and shorter stages: half an hour on 2 cores instead of hours.")
    ] = False,
    seed: Annotated[
        list[int] | None, typer.Option(min=0, help="A chain of each method with this seed; may be given several times.")
    ] = None,
    overrides: Overrides = None,
    resume: Resume = False,
    processes: Processes = 0,
    as_json: AsJson = False,
) -> None:
    """Teach one model three skills in turn, by SDFT and by SFT, and measure what is left of each after every stage."""
    from rich.console import Console

    from selftaught.cli.progress import Progress
    from selftaught.continual.sequential import job_labels
    from selftaught.continual.sequential import sequential as run
    from selftaught.reports import sequence_table

    with Progress(job_labels(fast, seed, overrides or ()), quiet=as_json) as progress:
        report = run(out, model, fast, seed, overrides or (), resume, progress, processes)
    if as_json:
        print_json(report)
        return
    console = Console()
    console.print(sequence_table(report))
    print_checks(console, report["checks"], out)


@experiment.command()
def use(
    model: Model = "smollm2-135m",
    out: Annotated[Path, typer.Option(help="Folder for models and report.")] = Path("runs/use"),
    seed: Annotated[
        list[int] | None, typer.Option(min=0, help="A chain of each method with this seed; may be given several times.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", "-s", help="Change the recipe: -s lessons=2 -s sdft.epochs=4")
    ] = None,
    resume: Resume = False,
    processes: Processes = 0,
    as_json: AsJson = False,
) -> None:
    """Let a scripted user talk to a model and correct it, lesson after lesson, by SDFT and by SFT: hours on 2 cores."""
    from rich.console import Console

    from selftaught.cli.progress import Progress
    from selftaught.continual.use_experiment import job_labels, use_experiment
    from selftaught.reports.use import use_table

    with Progress(job_labels(seed, overrides or ()), quiet=as_json) as progress:
        report = use_experiment(out, model, seed, overrides or (), resume, progress, processes)
    if as_json:
        print_json(report)
        return
    console = Console(highlight=False)
    console.print(use_table(report))
    print_checks(console, report["checks"], out)


def print_checks(console: Any, checks: list[dict[str, Any]], out: Path) -> None:
    """A line a check, and where the report is."""
    for row in checks:
        mark = "[green]✓[/]" if row["met"] else "[red]✗[/]"
        console.print(f"{mark} {row['name']}: {row['value']} (target {row['target']})")
    console.print(f"Report: {out / 'report.html'} (and report.json)", markup=False, soft_wrap=True)


@experiment.command()
def knowledge(
    model: Model = "smollm2-135m",
    out: Annotated[Path, typer.Option(help="Folder for the corpus, in corpus/, and the run, in run/.")] = Path(
        "runs/knowledge"
    ),
    generator: Annotated[str, typer.Option(help="Who asks: self, none, a model, or http://…/v1#MODEL.")] = "self",
    recipe: Recipe = None,
    overrides: Overrides = None,
    resume: Resume = False,
    processes: Processes = 0,
    as_json: AsJson = False,
) -> None:
    """Teach the built-in corpus as files only, beside the baselines: the table of the paper's knowledge injection."""
    from selftaught.cli import learning
    from selftaught.config_files import load_config
    from selftaught.data.corpora.written import write_disasters

    config = load_config(recipe, overrides or ())
    write_disasters(out / "corpus", out / "questions.jsonl")
    learning.learn_documents(
        str(out / "corpus"),
        located(model),
        out / "run",
        config,
        generator,
        str(out / "questions.jsonl"),
        [name for name in ("oracle", "cpt", "sft", "sdft") if name != config.method],
        resume,
        processes,
        as_json,
    )


def ablate(
    recipe: Annotated[
        str, typer.Argument(help="TOML file, or a packaged one: ablate/baselines, ablate/skills, ablate/sdft.")
    ],
    model: Model = "smollm2-135m",
    out: Annotated[Path, typer.Option(help="Folder for the runs and the report.")] = Path("runs/ablate"),
    overrides: Annotated[
        list[str] | None, typer.Option("--set", "-s", help="Change the recipe: -s seeds=[0,1,2] -s common.steps=20")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what is in --out, or add arms, tasks and seeds to it.")
    ] = False,
    processes: Processes = 0,
    as_json: AsJson = False,
) -> None:
    """Compare configurations on the same tasks and seeds: what each learned, forgot and cost, at several moments."""
    from rich.console import Console

    from selftaught.cli.progress import Progress
    from selftaught.continual.ablate import ablate as run
    from selftaught.continual.ablate import job_labels
    from selftaught.reports.ablation_html import ablation_table, task_notes

    with Progress(job_labels(recipe, overrides or ()), quiet=as_json) as progress:
        report = run(recipe, out, model, overrides or (), resume, progress, processes)
    if as_json:
        print_json(report)
        return
    console = Console()
    for task in report["tasks"]:
        console.print(ablation_table(report, task))
        for note in task_notes(report["tasks"][task]):
            console.print(note, markup=False, soft_wrap=True)
    console.print(f"Report: {out / 'report.html'} (and report.json)", markup=False, soft_wrap=True)


def compare(
    first: Annotated[str, typer.Argument(help=AnyModel)],
    second: Annotated[str, typer.Argument(help="Another.")],
    data: Annotated[
        list[str] | None, typer.Option(help="A data set to ask as well; may be given several times.")
    ] = None,
    tolerance: Annotated[float, typer.Option(min=0, max=0.99, help="Largest drop that counts as kept: 0.03.")] = 0.03,
    probes: Annotated[
        Literal["standard", "bank", "none"], typer.Option(help="Which probes; the bank is larger, and decides more.")
    ] = "standard",
    out: Annotated[Path | None, typer.Option(help="Folder for report.html and report.json.")] = None,
    items: Annotated[int, typer.Option(min=0, help="Lost items to print of each skill and family.")] = 2,
    processes: Processes = 0,
    as_json: AsJson = False,
) -> None:
    """Compare any two models: what the second has kept, lost and gained of what the first can do."""
    from rich.console import Console

    from selftaught.cli.ledger import print_flips, print_verdict
    from selftaught.cli.progress import Progress
    from selftaught.continual.compare import compare as run
    from selftaught.reports.comparison import write_comparison

    with Progress({"first": first, "second": second}, quiet=as_json) as progress:
        found = run(located(first), located(second), data or (), probes, tolerance, watch=progress, processes=processes)
    found["first"], found["second"] = first, second  # a version's name, not where its weights lie
    if as_json:
        print_json(found)
        if out is not None:
            write_comparison(found, out)
        return
    console = Console(highlight=False)
    console.print(f"{first} → {second}", markup=False)
    print_verdict(console, found, decision=False)
    for name, flips in found["flips"].items():
        lost = [flip for flip in flips if not flip["gained"]]
        if lost and items:
            console.print(f"[bold]{name}[/]: {len(lost)} lost")
            print_flips(console, lost[:items], "before", "after")
    drift = found["drift_nats"]
    words = "not measured, as their tokens differ" if drift is None else f"KL(first‖second) = {drift:.3f} nats a token"
    console.print(f"drift: {words}")
    if out is not None:
        write_comparison(found, out)
        console.print(f"Report: {out / 'report.html'} (and report.json)", markup=False, soft_wrap=True)
