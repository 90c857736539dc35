"""Options that several commands share, and how results are printed for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

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
Reason = Annotated[str, typer.Option(help="Why, in words; recorded in the ledger.")]

HERE = Path()


def print_json(value: Any) -> None:
    """On standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False))
