"""Commands of a workspace: what its ledger holds, and what moves its HEAD."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from selftaught.cli.options import HERE, AsJson, Excused, InWorkspace, Model, Reason, print_json

EXIT_CODES = {"promoted": 0, "rejected": 3, "inconclusive": 4}  # 2 is an error
MARKS = {
    "base": "dim",
    "promoted": "green",
    "rejected": "red",
    "inconclusive": "yellow",
    "rolled back": "magenta",
}
Name = Annotated[str, typer.Argument(help="A version: v3, or HEAD.")]


def init(
    folder: Annotated[Path, typer.Argument(help="Where; made if missing.")] = HERE,
    model: Model = "smollm2-135m",
) -> None:
    """Make a workspace: one model that learns skill after skill, and a ledger that remembers everything."""
    from selftaught.continual.workspace import Workspace

    there = (folder / "selftaught.toml").exists()
    workspace = Workspace.create(folder, model)
    file = workspace.root / "selftaught.toml"
    print(f"{file} {'kept as it was' if there else 'made'}; a new ledger: HEAD is v0, {workspace.config.model}.")
    print("Next: selftaught skills add NAME DATA (or tools, medical, science), then selftaught learn NAME")


def log(workspace: InWorkspace = HERE, as_json: AsJson = False) -> None:
    """List the versions, the newest first, with their accuracies and what became of them."""
    from rich.console import Console
    from rich.table import Table

    from selftaught.continual import views
    from selftaught.continual.workspace import Workspace

    found = views.log(Workspace.open(workspace))
    if as_json:
        print_json(found)
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("version", "from", "taught", "status", *found["skills"], "probes", "drift"):
        table.add_column(title, justify="left" if title in ("version", "from", "taught", "status") else "right")
    for row in found["versions"]:
        name = f"{row['version']} ← HEAD" if row["version"] == found["head"] else row["version"]
        lesson = f"{row['skill']} ({row['method']})" if row["skill"] else ""
        status = row["status"] if row["weights"] else f"{row['status']}, weights removed"
        scores = dict(row["accuracy"])
        skills = [_percent(scores.pop(skill, None)) for skill in found["skills"]]
        probes = _percent(sum(scores.values()) / len(scores) if scores else None)
        drift = "" if row["drift_nats"] is None else f"{row['drift_nats']:.3f}"
        mark = MARKS.get(row["status"], "")
        table.add_row(
            name, row["parent"] or "", lesson, f"[{mark}]{status}[/]" if mark else status, *skills, probes, drift
        )
    console = Console()
    console.print(table)
    last = found["versions"][0]
    console.print(f"{last['version']}: {last['reason']}", markup=False, highlight=False)


def show(
    version: Name = "HEAD",
    documents: Annotated[bool, typer.Option("--documents", help="Show which documents taught it what.")] = False,
    workspace: InWorkspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Show all that is known of a version: where it comes from, its scores, the gate's verdict."""
    from rich.console import Console

    from selftaught.continual import views
    from selftaught.continual.workspace import Workspace

    if documents:
        _show_documents(views.taught_documents(Workspace.open(workspace), version), version, as_json)
        return
    found = views.shown(Workspace.open(workspace), version)
    if as_json:
        print_json(found)
        return
    console = Console(highlight=False)
    head = ", HEAD" if found["is_head"] else ""
    taught = f": {found['skill']} by {found['method']}, seed {found['seed']}" if found["skill"] else ": the base"
    console.print(f"[bold]{found['version']}[/] ({found['status']}{head}){taught}")
    console.print(
        f"lineage {' ← '.join(found['lineage'])}; made {found['created']} by selftaught {found['code_version']}"
    )
    if found["training"]:
        training = found["training"]
        console.print(
            f"{training['steps']} steps in {training['seconds']:.0f} s, drift from the base "
            f"{'not measured' if found['drift_nats'] is None else format(found['drift_nats'], '.3f') + ' nats a token'}"
        )
        _print_stopped(console, found["version"], found["training"])
    if found["data_hash"]:
        console.print(f"data {found['data_hash'][:16]}…, weights {found['model_artifact'][:16]}…", markup=False)
    for name, score in found["scores"].items():
        console.print(
            f"  {name:<16} {score['value']:6.1%}  ({score['correct']}/{score['total']}, "
            f"95%: {score['low']:.0%}–{score['high']:.0%})  {score['kind']}"
        )
    if found["verdict"]:
        print_verdict(console, found["verdict"])
    for event in found["events"]:
        reason = event["reason"].removeprefix(f"{event['kind']}: ")
        console.print(f"{event['created']}  {event['kind']}: {reason}", markup=False, soft_wrap=True)


def _show_documents(found: list[dict[str, Any]], version: str, as_json: bool) -> None:
    """Which documents taught what."""
    if as_json:
        print_json(found)
        return
    for row in found:
        known = f"; {row['correct']} of {row['asked']} test questions right" if row["asked"] else ""
        print(
            f"{row['document']:<40} {row['digest'][:12]}  {row['version']} ({row['skill']}): "
            f"{row['taught']} questions taught{known}"
        )
    if not found:
        print(f"{version} was taught no documents; make a skill of some: selftaught skills add NAME --documents FOLDER")


def diff(
    before: Annotated[str, typer.Argument(help="A version: v2.")],
    after: Annotated[str, typer.Argument(help="Another: v3, or HEAD.")] = "HEAD",
    items: Annotated[int, typer.Option(min=0, help="Flipped items to print of each skill and family.")] = 3,
    workspace: InWorkspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Compare two versions: scores, and the very items that flipped, with both answers."""
    from rich.console import Console

    from selftaught.continual import views
    from selftaught.continual.workspace import Workspace

    found = views.difference(Workspace.open(workspace), before, after)
    if as_json:
        print_json(found)
        return
    console = Console(highlight=False)
    for suite in found["suites"]:
        old, new = suite["before"], suite["after"]
        console.print(
            f"[bold]{suite['suite']}[/]  {found['before']} {old['value']:.1%} → {found['after']} {new['value']:.1%} "
            f"({100 * (new['value'] - old['value']):+.1f} points; {suite['gained']} gained, {suite['lost']} lost, "
            f"p = {suite['p']:.2g})"
        )
        print_flips(console, _some(suite["flips"], items), found["before"], found["after"])
        if len(suite["flips"]) > items > 0:
            console.print(f"  … and {len(suite['flips']) - items} more (--items {len(suite['flips'])})")


def rollback(
    version: Annotated[str, typer.Argument(help="Where HEAD goes: one of the versions it was taught from.")],
    reason: Reason = "",
    workspace: InWorkspace = HERE,
) -> None:
    """Move HEAD back to an earlier version. Nothing is deleted."""
    from selftaught.continual.workspace import Workspace

    opened = Workspace.open(workspace)
    gone = opened.roll_back(version, reason or "rolled back by hand")
    names = ", ".join(one.name for one in gone)
    print(f"HEAD is {opened.ledger.head().name} again; {names} {'is' if len(gone) == 1 else 'are'} rolled back.")


def promote(version: Name, override: Excused = None, reason: Reason = "", workspace: InWorkspace = HERE) -> None:
    """Let a version in that the gate held or rejected: name each check that it did not pass, and say why."""
    from selftaught.continual.verdict import promote as run
    from selftaught.continual.workspace import Workspace

    opened = Workspace.open(workspace)
    print(f"{run(opened, version, override or (), reason).name} is promoted, and HEAD.")


def export(
    version: Name,
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    adapter: Annotated[
        bool, typer.Option("--adapter", help="Write the peft adapter that was trained instead.")
    ] = False,
    workspace: InWorkspace = HERE,
) -> None:
    """Write a version as a plain transformers directory, which loads anywhere."""
    from selftaught.continual.workspace import Workspace

    print(f"{out}: {Workspace.open(workspace).export(version, out, adapter).name}")


def gc(
    keep: Annotated[int | None, typer.Option(min=1, help="Keep the weights of so many promoted versions only.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    workspace: InWorkspace = HERE,
) -> None:
    """Remove weights that are not in force (rejected, rolled back) and what nothing refers to; the record stays."""
    from selftaught.continual.workspace import Workspace

    gone, size = Workspace.open(workspace).collect(dry_run, keep)
    names = ", ".join(version.name for version in gone) or "no version"
    print(f"{'would remove' if dry_run else 'removed'} the weights of {names}; {size / 2**20:.0f} MiB")


def fsck(workspace: InWorkspace = HERE) -> None:
    """Check every hash. Exit code 1 if anything is damaged."""
    from selftaught.continual.workspace import Workspace

    opened = Workspace.open(workspace)
    problems = opened.check()
    for problem in problems:
        print(problem)
    if problems:
        raise typer.Exit(1)
    print(
        f"sound: {len(opened.ledger.versions())} versions, {len(opened.ledger.artifacts())} artifacts, "
        f"HEAD is {opened.ledger.head().name}"
    )


def workspace_of(data: str, start: Path, model: str | None, out: Path | None, resume: bool) -> Any:
    """The workspace whose skill is to be learned; None if it is data outside of any.

    Raises:
        ConfigError: it is neither a file nor a skill of the workspace, or a lesson is given what only a run takes.
    """
    from selftaught.continual.workspace import Workspace
    from selftaught.errors import ConfigError

    is_data = Path(data).is_file() or any(mark in data for mark in "/.:")
    if start == HERE and (is_data or Workspace.find(start) is None):
        return None
    if is_data:
        raise ConfigError(f"{data}: is data, not a skill; register it first: selftaught skills add NAME {data}")
    opened = Workspace.open(start)
    opened.ledger.skill(data)
    if out is not None:
        raise ConfigError(
            "--out: a lesson keeps its versions in the workspace; leave it out, and see selftaught export"
        )
    if resume:
        raise ConfigError("--resume: an interrupted lesson goes on by itself when it is asked for again; leave it out")
    if model is not None:
        raise ConfigError(f"--model: a lesson teaches HEAD ({opened.ledger.head().name}); leave it out")
    return opened


def check_no_lesson(data: str, override: list[str], reason: str) -> None:
    """Outside of a lesson: says what a bare name may have been meant as, and refuses what only a lesson takes.

    Raises:
        ConfigError: --override or --reason was given, or a name that is neither a file nor a data set.
    """
    from selftaught.continual.workspace import Workspace
    from selftaught.errors import ConfigError

    if override or reason:
        raise ConfigError("--override and --reason are for a lesson in a workspace, and this is none")
    if not Path(data).exists() and not any(mark in data for mark in "/.:"):
        raise ConfigError(
            f"{data}: no such file, and this is no workspace with such a skill; make one: selftaught init"
        )
    if Workspace.find(HERE) is not None:
        print(
            "selftaught: this teaches the model, not the workspace's HEAD; for a lesson, register the data first: "
            f"selftaught skills add NAME {data}",
            file=sys.stderr,
        )


def learn_skill(
    workspace: Any,
    skill: str,
    recipe: Path | None,
    overrides: list[str],
    override: list[str],
    reason: str,
    processes: int,
    as_json: bool,
    dry_run: bool,
) -> NoReturn:
    """A lesson in a workspace; ends with an exit code for scripts."""
    from dataclasses import asdict

    from selftaught.cli import learning
    from selftaught.cli.progress import Progress
    from selftaught.config import METHOD_LABELS
    from selftaught.config_files import read_toml
    from selftaught.continual.lesson import teach
    from selftaught.recipes import recipe_file

    config = workspace.config.learn_config(read_toml(recipe_file(recipe)) if recipe else {}, overrides)
    if dry_run:
        rows, head = workspace.rows(workspace.ledger.skill(skill)), workspace.model_folder(workspace.ledger.head())
        learning.dry_run(rows, str(head), None, config, False, processes, as_json)
        raise typer.Exit
    labels = {"head": f"HEAD ({workspace.ledger.head().name})", "lesson": f"{METHOD_LABELS[config.method]} {skill}"}
    with Progress(labels, quiet=as_json) as progress:
        lesson = teach(workspace, skill, config, override, reason, progress, processes)
    if as_json:
        print_json({**asdict(lesson), "head": workspace.ledger.head().name})
    else:
        print_lesson(workspace, lesson)
    raise typer.Exit(EXIT_CODES[lesson.status])


def print_lesson(workspace: Any, lesson: Any) -> None:
    """What a lesson came to, and what can be done next."""
    from rich.console import Console

    console = Console(highlight=False)
    _print_stopped(console, lesson.version.name, lesson.version.training)
    print_verdict(console, lesson.verdict)
    if lesson.reason != lesson.verdict["sentence"]:
        console.print(lesson.reason, markup=False, soft_wrap=True)
    _print_next(console, workspace, lesson)


def _print_stopped(console: Any, name: str, training: dict[str, Any] | None) -> None:
    """That a version's run ended itself, if it did."""
    from selftaught.reports.tables import ended_itself

    if training and training.get("stopped"):
        console.print(ended_itself(name, training["stopped"]), style="yellow", markup=False, soft_wrap=True)


def print_verdict(console: Any, verdict: dict[str, Any], decision: bool = True) -> None:
    """A line a check; then, where something was to be decided, the decision."""
    marks = {"improved": "[green]✓[/]", "kept": "[green]✓[/]", "regressed": "[red]✗[/]", "unimproved": "[red]✗[/]"}
    for check in verdict["checks"]:
        console.print(f"{marks.get(check['outcome'], '[yellow]?[/]')} ", end="")
        console.print(check["sentence"], markup=False, soft_wrap=True)
    if decision:
        colour = MARKS[verdict["outcome"]]
        console.print(f"[bold {colour}]{verdict['outcome']}[/]", end="")
        console.print(verdict["sentence"].removeprefix(verdict["outcome"]), markup=False, soft_wrap=True)


def _some(flips: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """So many flips: losses first, but of the gains at least one in three where there are any."""
    lost, gained = ([flip for flip in flips if flip["gained"] == way] for way in (False, True))
    num_lost = min(len(lost), max(count - len(gained), count - count // 3))
    return [*lost[:num_lost], *gained[: count - num_lost]]


def print_flips(console: Any, flips: Sequence[dict[str, Any]], before: str, after: str) -> None:
    """Items that only one of two models has right, with both answers."""
    for flip in flips:
        console.print("  [green]gained[/] " if flip["gained"] else "  [red]lost[/] ", end="")
        console.print(f"{flip['id']}: {_line(flip['question'])}", markup=False)
        console.print(f"      {before}: {_line(flip['before'])}", markup=False)
        console.print(f"      {after}: {_line(flip['after'])}", markup=False)


def _print_next(console: Any, workspace: Any, lesson: Any) -> None:
    from selftaught.continual.verdict import failed_checks

    head, name = workspace.ledger.head().name, lesson.version.name
    if lesson.status == "promoted":
        console.print(f"HEAD is {head}. Ask it: selftaught ask {head} QUESTION", markup=False, soft_wrap=True)
        return
    overrides = " ".join(f"--override {check}" for check in failed_checks(lesson.verdict))
    console.print(
        f"HEAD stays {head}. What flipped: selftaught diff {head} {name}. To let it in all the same: "
        f'selftaught promote {name} {overrides} --reason "…"',
        markup=False,
        soft_wrap=True,
    )


def _line(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 200 else f"{flat[:80]} … {flat[-110:]}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
