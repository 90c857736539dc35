"""What every page shares: how it is rendered and written, and how settings, machines and answers are shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from selftaught.errors import ArtifactError
from selftaught.files import write_json, write_text
from selftaught.reports.tables import NOTHING

SCHEMA = 1
LONG_ANSWER = 240  # characters; beyond it the answer is folded


def write_pair(report: Mapping[str, Any], page: str, folder: Path) -> tuple[Path, Path]:
    """Writes report.json and report.html, each whole or not at all.

    Args:
        report: the numbers.
        page: made from them.
        folder: made if it is missing.

    Returns:
        The paths of report.json and report.html.

    Raises:
        ArtifactError: the report holds a number that is not finite, or cannot be written.
    """
    as_json, as_html = folder / "report.json", folder / "report.html"
    try:
        write_json(as_json, report)
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"{as_json}: the report is not JSON ({error}); leave out what was not measured") from error
    write_text(as_html, page)
    return as_json, as_html


def render(report: Mapping[str, Any], template: str, view: Callable[[Mapping[str, Any]], dict[str, Any]]) -> str:
    """A page, as text.

    Args:
        report: see docs/report.md.
        template: a file beside this one.
        view: everything that the template shows, in words.

    Raises:
        ArtifactError: the report is of another schema, or lacks a field that every report has.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    if report.get("schema") != SCHEMA:
        raise ArtifactError(
            f"report: schema {report.get('schema')!r} is not known here, only {SCHEMA}; use the selftaught that made it"
        )
    try:
        shown = view(report)
    except KeyError as error:
        raise ArtifactError(f"report: the field {error} is missing; docs/report.md lists the fields") from error
    environment = Environment(
        loader=FunctionLoader(_source), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(**shown, svg=Markup) + "\n"


def _source(name: str) -> str:
    return resources.files("selftaught.reports").joinpath(name).read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------ what it shows


@dataclass
class Cell:
    """One run's value in one row of a table of results."""

    text: str
    detail: str = ""
    tone: str = ""
    best: bool = False
    bar: dict[str, float] | None = None
    limits: str = ""


@dataclass
class Row:
    """One measured quantity: a label, a hint and a cell for each run."""

    label: str
    hint: str
    count: str = ""
    cells: list[Cell] = field(default_factory=list)


def mark_best(row: Row, values: Sequence[float | None], pick: Callable[..., float]) -> None:
    """Marks the best cells of a row, unless there is nothing to compare or all are alike.

    Args:
        row: with all its cells.
        values: of the cells that compete, else None.
        pick: max or min.
    """
    known = [value for value in values if value is not None]
    if len(set(known)) < 2:
        return
    for cell, value in zip(row.cells, values, strict=True):
        cell.best = value is not None and value == pick(known)


def answer_text(answer: Mapping[str, Any]) -> dict[str, Any]:
    """An answer, and how it starts if it is long."""
    text = answer["text"].strip()
    start = text[:LONG_ANSWER].rsplit(None, 1)[0] if len(text) > LONG_ANSWER else ""
    return {"text": text, "start": start, "correct": answer["correct"]}


def settings(configs: Sequence[tuple[str, Mapping[str, Any] | None, str | None]]) -> list[dict[str, Any]]:
    """Configurations as dotted names; names whose values differ between them are marked.

    Args:
        configs: each a label, the configuration (None is left out), and the folder of what it made.
    """
    flat = [(label, dict(_flatten(config)), folder) for label, config, folder in configs if config]
    same = {
        name
        for name in (flat[0][1] if flat else {})
        if len({str(values.get(name, NOTHING)) for _, values, _ in flat}) == 1
    }
    return [
        {
            "label": label,
            "model_dir": folder,
            "rows": [{"name": n, "value": v, "marked": len(flat) > 1 and n not in same} for n, v in values.items()],
        }
        for label, values, folder in flat
    ]


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in tree.items():
        name = f"{prefix}{key}"
        rows += _flatten(value, f"{name}.") if isinstance(value, Mapping) else [(name, _value(value))]
    return rows


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"  # as in a recipe
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def facts(report: Mapping[str, Any], data: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Model, data, machine and versions: what another person needs to repeat this.

    Args:
        report: see docs/report.md.
        data: the rows that tell of the data.
    """
    model, machine = report["model"], report.get("machine") or {}
    size = f", {model['parameters'] / 1e6:,.1f} million parameters" if model.get("parameters") else ""
    memory = f", {machine['memory_gib']:.1f} GiB of memory" if machine.get("memory_gib") else ""
    cores = f", {machine['cores']} cores" if machine.get("cores") else ""
    processes = f", {machine['processes']} processes" if (machine.get("processes") or 1) > 1 else ""
    versions = [f"{name} {machine[name]}" for name in ("torch", "python") if machine.get(name)]
    rows = [
        ("Model", f"{model['name']}{size}" + (f", computed in {model['dtype']}" if model.get("dtype") else "")),
        ("Model files", model.get("path") or ""),
        *data,
        ("Machine", f"{machine.get('processor', '')}{cores}{memory}{processes}".strip(", ")),
        ("Versions", ", ".join([f"selftaught {report['selftaught']}", *versions])),
        ("Made", report["created"]),
    ]
    return [(name, value) for name, value in rows if value]


def thousands(value: float) -> str:
    """A count with a gap each three digits."""
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def unbroken(quantity: str) -> str:
    """Keeps each number on one line with its unit: "6 min" and "42 s" may part, "42" and "s" may not."""
    return re.sub(r"(?<=\d) (?=[A-Za-z])", "\N{NO-BREAK SPACE}", quantity)


def spaced(name: str) -> str:
    """A name as a title: "by_hand" is "By hand"."""
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]
