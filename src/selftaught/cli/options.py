"""Options that several commands share, and how results are printed for programs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

AnyModel = "Embedded name, model or run directory, hub id or, in a workspace, a version (v2, HEAD)."
Model = Annotated[str, typer.Option("--model", "-m", help="Embedded name, model or run directory, or hub id.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines on standard output.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the interrupted run in --out.")]
Recipe = Annotated[Path | None, typer.Option("--recipe", "-r", help="TOML file with configuration.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", "-s", help="Change one setting: -s learning_rate=1e-4 -s teacher.kind=ema")
]
Processes = Annotated[
    int, typer.Option(min=0, help="How many train together, a core each; 0 is one for each core that a batch can feed.")
]
InWorkspace = Annotated[
    Path, typer.Option("--workspace", "-w", help="The workspace's folder, or one inside it.", show_default=False)
]
Excused = Annotated[
    list[str] | None,
    typer.Option("--override", help="Promote although this skill or probe family failed; give a --reason too."),
]
Method = Annotated[
    str | None, typer.Option(help="sdft (self-distillation, the default), or a baseline: docs/methods.md.")
]
Documents = Annotated[
    str | None, typer.Option(help="Learn from a file or folder of documents instead: text, HTML, PDF, Word, CSV.")
]
Generator = Annotated[
    str | None,
    typer.Option(help="Who asks about the documents: self (the default), none, a model, or http://…/v1#MODEL."),
]
Questions = Annotated[
    str | None, typer.Option(help="A data set of your own questions about them: taught instead, or asked besides.")
]
Beside = Annotated[list[str] | None, typer.Option(help="A baseline to measure beside it; may be given several times.")]
Judge = Annotated[
    str | None,
    typer.Option(help="Who judges answers about documents that rules cannot: http://…/v1#MODEL."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check everything but the weights, say what would be done, and write nothing.")
]
Reason = Annotated[str, typer.Option(help="Why, in words; recorded in the ledger.")]

HERE = Path()
VERSION = re.compile(r"HEAD|v\d+")


def located(model: str) -> str:
    """A version of the workspace that one is in ("v2", "HEAD") as the folder of its weights; any other model as it is.

    Raises:
        ConfigError: there is no workspace here, or no such version in it.
        ArtifactError: its weights are gone or damaged.
    """
    if not VERSION.fullmatch(model) or Path(model).exists():
        return model
    from selftaught.continual.workspace import Workspace

    opened = Workspace.open(HERE)
    return str(opened.model_folder(opened.ledger.version(model)))


def days(text: str, option: str) -> float:
    """ "30d" or "12h" in days.

    Raises:
        ConfigError: it is neither.
    """
    from selftaught.errors import ConfigError

    found = re.fullmatch(r"(\d+(?:\.\d+)?)([dh])", text)
    if not found or not float(found[1]):
        raise ConfigError(f"{option}: {text!r} is no time; write 30d or 12h")
    return float(found[1]) / (1 if found[2] == "d" else 24)


def print_json(value: Any) -> None:
    """On standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False))
