"""All commands. Each parses its words, calls the library, and shows the result."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from selftaught.cli import learning, ledger, use
from selftaught.cli.experiment import ablate, compare, experiment
from selftaught.cli.harness import harness
from selftaught.cli.options import (
    HERE,
    AnyModel,
    AsJson,
    Beside,
    Documents,
    DryRun,
    Excused,
    Generator,
    InWorkspace,
    Judge,
    Method,
    Model,
    Overrides,
    Processes,
    Questions,
    Reason,
    Recipe,
    Resume,
    located,
    print_json,
)
from selftaught.cli.serving import dashboard, keys, serve
from selftaught.cli.skills import skills

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Teach a language model skill after skill by self-distillation, and measure what it gained and forgot.",
)


@app.callback(invoke_without_command=True)
def common(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of errors.")] = False,
) -> None:
    if version:
        from selftaught._version import __version__

        print(__version__)
        raise typer.Exit
    if debug:
        os.environ["SELFTAUGHT_DEBUG"] = "1"
    from selftaught.runtime import prepare

    prepare()


@app.command()
def quickstart(
    model: Model = "smollm2-135m",
    out: Annotated[Path, typer.Option(help="Folder for models and report.")] = Path("runs/quickstart"),
    resume: Resume = False,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", "-s", help="Change a method's setting: -s sdft.learning_rate=1e-4")
    ] = None,
    processes: Processes = 0,
    as_json: AsJson = False,
) -> None:
    """Teach ten invented disasters by SDFT and by SFT, and compare: about a quarter of an hour on 2 cores."""
    from selftaught.cli.progress import Progress
    from selftaught.main_job import LABELS
    from selftaught.main_job import quickstart as run

    with Progress(LABELS, quiet=as_json) as progress:
        report = run(model, out, resume, overrides or (), watch=progress, processes=processes)
    learning.show(report, out, as_json, out / "sdft", "In which country did the Alvorim wildfire burn?")


@app.command()
def learn(
    data: Annotated[
        str | None, typer.Argument(help="In a workspace, a skill; else a file, or hub data set (owner/name).")
    ] = None,
    documents: Documents = None,
    generator: Generator = None,
    questions: Questions = None,
    beside: Beside = None,
    judge: Judge = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="As above; smollm2-135m if left out.")] = None,
    method: Method = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the taught model; runs/learn if left out.")] = None,
    recipe: Recipe = None,
    overrides: Overrides = None,
    resume: Resume = False,
    processes: Processes = 0,
    override: Excused = None,
    reason: Reason = "",
    interactions: Annotated[
        bool, typer.Option("--interactions", help="In a workspace: learn from what users said of HEAD's answers.")
    ] = False,
    every: Annotated[str | None, typer.Option(help="With --interactions: as a service, each 24h or 7d.")] = None,
    workspace: InWorkspace = HERE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Teach a model from your demonstrations, and measure what it gained and forgot.

    In a workspace (selftaught init) name a skill: HEAD is taught, everything is measured again, and the gate promotes
    the new version only if nothing regressed. Exit code 0: promoted, 3: rejected, 4: inconclusive, 2: an error.
    """
    from selftaught.config_files import load_config
    from selftaught.errors import ConfigError

    if method and any(change.startswith("method=") for change in overrides or ()):
        raise ConfigError("--method: is set by -s too; give it once")
    changes = [*([f"method={method}"] if method else []), *(overrides or [])]
    place = out or Path("runs/learn")
    about = {"--generator": generator, "--questions": questions, "--beside": beside, "--judge": judge}
    if dry_run and (interactions or documents is not None):
        raise ConfigError("--dry-run: is for a data set or a skill; documents and conversations become rows on the way")
    if interactions:
        lesson = {"--override": override, "--reason": reason, "--model": model, "--out": out, "--resume": resume}
        others = {"--every": every} if as_json else {}
        use.check_alone({str(data): data, "--documents": documents, **about, **lesson, **others})
        use.learn_interactions(workspace, recipe, changes, every, processes, as_json)
    if every is not None:
        raise ConfigError("--every: is about learning from use; add --interactions")
    if documents is not None:
        learning.check_alone(data, override or [], reason, workspace, model)
        taught, config = located(model or "smollm2-135m"), load_config(recipe, changes)
        learning.learn_documents(
            documents, taught, place, config, generator, questions, beside or [], resume, processes, as_json, judge
        )
        return
    data = learning.check_data(data, about)
    opened = ledger.workspace_of(data, workspace, model, out, resume)
    if opened is not None:
        ledger.learn_skill(opened, data, recipe, changes, override or [], reason, processes, as_json, dry_run)
    ledger.check_no_lesson(data, override or [], reason)
    run = learning.dry_run if dry_run else learning.learn_data
    run(data, located(model or "smollm2-135m"), place, load_config(recipe, changes), resume, processes, as_json)


@app.command()
def check(
    data: Annotated[str, typer.Argument(help="JSONL, CSV or Parquet file, or hub data set (owner/name).")],
    model: Model = "smollm2-135m",
    recipe: Recipe = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Validate data and measure the lift: can the model use the demonstrations in its context?"""
    from selftaught import api
    from selftaught.config_files import load_config
    from selftaught.reports import lift_line

    found = api.check(data, located(model), load_config(recipe, overrides or ()))
    if as_json:
        print_json(found)
        return
    groups = ", ".join(f"{count} {group}" for group, count in found["groups"].items())
    print(f"{found['rows']} rows are valid ({groups}); {found['train_rows']} to teach.")
    print(lift_line(found["lift"]))


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help=AnyModel)],
    data: Annotated[str, typer.Argument(help="JSONL, CSV or Parquet file, or hub data set (owner/name).")],
    probes: Annotated[bool, typer.Option("--probes", help="Also ask the retention probes.")] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 64,
    show: Annotated[int, typer.Option(min=0, help="Number of answers to print.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Ask a model every question of a data set and score its answers."""
    from selftaught import api

    found = api.evaluate(located(model), data, max_new_tokens, probes)
    if as_json:
        print_json(found)
        return
    for group, share in {**found["accuracy"], **found["probes"]}.items():
        low, high = share["low"], share["high"]
        print(f"{group:<16} {share['value']:6.1%}  ({share['correct']}/{share['total']}, 95%: {low:.0%}–{high:.0%})")
    for result in found["results"][:show]:
        print(f"{'✓' if result['correct'] else '✗'} {result['id']}: {' '.join(result['question'].split())}")
        print(f"    {' '.join(result['completion'].split())}   (expected: {result['expected']})")


@app.command()
def ask(
    model: Annotated[str, typer.Argument(help=AnyModel)],
    prompt: Annotated[str | None, typer.Argument(help="A question; without one, a conversation begins.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 256,
    temperature: Annotated[float, typer.Option(min=0, help="0 always gives the likeliest answer.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the answer, where the temperature is above 0.")] = 0,
    system: Annotated[str | None, typer.Option(help="A system prompt.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask a model something: one answer, or a conversation."""
    from selftaught.api import Chat
    from selftaught.errors import DataError

    if prompt is not None and not prompt.strip():
        raise DataError("the question is empty")
    chat = Chat(located(model), max_new_tokens, temperature, seed, system)
    if prompt is not None:
        reply = chat.say(prompt)
        print_json({"model": model, "prompt": prompt, "completion": reply}) if as_json else print(reply)
        return
    if sys.stdin.isatty():
        print("Ask away; an empty line or Ctrl-D ends.")
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except EOFError:
            break
        if not line.strip():
            break
        print(chat.say(line))


app.command()(ledger.init)
app.add_typer(skills, name="skills")
for command in (ledger.log, ledger.show, ledger.diff, ledger.rollback, ledger.promote, ledger.export):
    app.command()(command)
app.command()(ledger.gc)
app.command()(ledger.fsck)
app.command()(serve)
app.add_typer(keys, name="keys")
app.add_typer(use.interactions, name="interactions")
app.command()(dashboard)
app.command()(compare)
app.command()(ablate)
app.add_typer(experiment, name="experiment")
app.command()(harness)
