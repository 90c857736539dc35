"""Learning from use: `learn --interactions`, and `interactions`: what is kept of a workspace's use."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from selftaught.cli.options import HERE, AsJson, InWorkspace, days, print_json

if TYPE_CHECKING:
    from selftaught.interactions import Interactions

interactions = typer.Typer(no_args_is_help=True, help="What is kept of a workspace's use: show, decide, export, purge.")

Numbers = Annotated[list[int], typer.Argument(help="Of the feedback, as interactions list shows them.")]
State = Literal["pending", "approved", "rejected", "learned"]


@interactions.command("list")
def list_feedback(
    state: Annotated[State | None, typer.Option(help="Only feedback of this state.")] = None,
    workspace: InWorkspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Show what was said of answers, the oldest first, and what became of it."""
    with _store(workspace) as store:
        pairs = store.feedback(state)
    if as_json:
        print_json([{**vars(said), "about": _as_dict(about)} for said, about in pairs])
        return
    for said, about in pairs:
        print(f"{said.id:>5}  {said.state:<8}  {said.kind:<10}  {about.version}, {said.key}: {_line(said.text)}")
        print(f"       asked: {_line(about.messages[-1].content)}")
        print(f"       answered: {_line(about.completion)}")
    if not pairs:
        print(f"no {state or 'kept'} feedback")


@interactions.command()
def approve(numbers: Numbers, workspace: InWorkspace = HERE) -> None:
    """Let feedback be learned; `approve = "by_hand"` in selftaught.toml makes all of it wait for this."""
    _decide(workspace, numbers, "approved")


@interactions.command()
def reject(numbers: Numbers, workspace: InWorkspace = HERE) -> None:
    """Keep feedback from being learned."""
    _decide(workspace, numbers, "rejected")


@interactions.command()
def export(
    out: Annotated[Path | None, typer.Option(help="A file; standard output if left out.")] = None,
    workspace: InWorkspace = HERE,
) -> None:
    """Write all that is kept as JSON lines: an interaction each, with what was said of it."""
    from selftaught.files import write_text

    with _store(workspace) as store:
        said: dict[str, list[dict[str, Any]]] = {}
        for one, about in store.feedback():
            said.setdefault(about.id, []).append(vars(one))
        rows = [{**_as_dict(one), "feedback": said.get(one.id, [])} for one in store.interactions()]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if out is None:
        print(text, end="")
        return
    write_text(out, text)
    print(f"{out}: {len(rows)} interactions")


@interactions.command()
def purge(
    key: Annotated[str | None, typer.Option(help="Only what this key asked.")] = None,
    older_than: Annotated[str | None, typer.Option(help="Only what is older: 30d, 12h.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of it.")] = False,
    workspace: InWorkspace = HERE,
) -> None:
    """Delete interactions and their feedback for good. Rows that a lesson was made of stay in the ledger."""
    age = None if older_than is None else timedelta(days=days(older_than, "--older-than"))
    with _store(workspace) as store:
        print(f"{store.purge(key=key, older_than=age, everything=everything)} interactions deleted")


def _decide(workspace: Path, numbers: list[int], state: State) -> None:
    from selftaught.errors import ConfigError

    with _store(workspace) as store:
        if learned := {said.id for said, _ in store.feedback("learned")} & set(numbers):
            raise ConfigError(f"feedback {min(learned)}: a lesson has learned from it already; see selftaught rollback")
        store.set_state(numbers, state)
    print(f"{len(set(numbers))} {state}")


@contextmanager
def _store(workspace: Path) -> Iterator[Interactions]:
    from selftaught.continual.workspace import Workspace

    with closing(Workspace.open(workspace).interactions()) as store:
        yield store


def _as_dict(about: Any) -> dict[str, Any]:
    return {**vars(about), "messages": [vars(message) for message in about.messages]}


def _line(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 160 else f"{flat[:159]}…"


# ------------------------------------------------------------------------------ learn --interactions


def check_alone(given: dict[str, object]) -> None:
    """What else `learn` takes has no place beside --interactions.

    Args:
        given: options by name, with what was given to them.

    Raises:
        ConfigError: one of them was given.
    """
    from selftaught.errors import ConfigError

    if alone := [name for name, value in given.items() if value]:
        raise ConfigError(f"{alone[0]}: has no place beside --interactions, which teaches HEAD what was said of it")


def learn_interactions(
    start: Path, recipe: Path | None, changes: list[str], every: str | None, processes: int, as_json: bool
) -> NoReturn:
    """Learns from feedback, once or as a service; ends with an exit code for scripts."""
    from selftaught.cli.ledger import EXIT_CODES

    if every is not None:
        _serve_lessons(start, recipe, changes, days(every, "--every"), processes)
        raise typer.Exit(0)
    status = _look(start, recipe, changes, processes, as_json, None)
    raise typer.Exit(0 if status is None else EXIT_CODES[status])


def _look(
    start: Path, recipe: Path | None, changes: list[str], processes: int, as_json: bool, watch: Any
) -> str | None:
    """One look at the feedback, with settings as they are now; what became of the lesson, if there was one."""
    from dataclasses import asdict

    from selftaught.cli.ledger import print_lesson
    from selftaught.cli.progress import Progress
    from selftaught.config import METHOD_LABELS
    from selftaught.config_files import read_toml
    from selftaught.continual.from_use import learn_from_use
    from selftaught.continual.workspace import Workspace
    from selftaught.recipes import recipe_file

    opened = Workspace.open(start)
    with closing(opened.ledger):
        config = opened.config.learn_config(read_toml(recipe_file(recipe)) if recipe else {}, changes)
        labels = {"head": f"HEAD ({opened.ledger.head().name})", "lesson": f"{METHOD_LABELS[config.method]} from use"}
        with Progress(labels, quiet=as_json or watch is not None) as progress:
            found = learn_from_use(opened, config, watch or progress, processes)
        if as_json:
            print_json({**asdict(found), "head": opened.ledger.head().name})
        else:
            print(found.words, flush=True)
            if found.lesson is not None:
                print_lesson(opened, found.lesson)
    return found.lesson.status if found.lesson is not None else None


def _serve_lessons(start: Path, recipe: Path | None, changes: list[str], period: float, processes: int) -> None:
    """Looks every so many days until SIGTERM, which ends a lesson between two steps; the next start goes on with it."""
    import signal
    import sys
    from threading import Event

    from selftaught.continual.from_use import every, until
    from selftaught.continual.workspace import Workspace
    from selftaught.errors import SelftaughtError

    ended = Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    Workspace.open(start).ledger.close()  # what is wrong from the beginning ends the service

    def look() -> None:
        try:
            _look(start, recipe, changes, processes, False, until(ended.is_set))
        except (
            SelftaughtError
        ) as error:  # another lesson is under way, a disk is full: the next look may find it mended
            print(f"selftaught: {' '.join(str(error).split())}", file=sys.stderr, flush=True)

    every(period * 86400, look, ended.wait)
    print("ended", flush=True)
