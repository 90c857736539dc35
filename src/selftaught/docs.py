"""Writes the generated documentation: `python -m selftaught.docs [folder]`.

`cli.md` is made from each command's help, `configuration.md` from the fields of the configuration classes. A test
fails when either is out of date.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from selftaught.config import LearnConfig
from selftaught.continual.workspace_config import WorkspaceConfig
from selftaught.files import write_text

WIDTH = 100
ENDING = """Standard output holds the result, standard error the progress. What is wrong is said in one line with exit
code 2, and a misspelt option beside its command's usage; `selftaught --debug …` shows the traceback. Ctrl-C ends
with exit code 130, and `--resume` goes on. A lesson in a workspace ends with 0 if it is promoted, 3 if it is
rejected, 4 if the gate cannot say; asked for again, it goes on by itself.
"""
NOTE = "<!-- made by `python -m selftaught.docs`; do not edit -->\n"


def main() -> None:
    """Writes both files into the folder that the command line names, or into docs."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
    for name, text in documents().items():
        write_text(folder / name, text)
        print(folder / name)


def documents() -> dict[str, str]:
    """The generated files' texts, by name."""
    return {"cli.md": command_line(), "configuration.md": configuration()}


# ---------------------------------------------------------------------------------- the command line


def command_line() -> str:
    """Every command's help, as plain text."""
    from typer.main import get_command

    from selftaught.cli.app import app

    root: Any = get_command(app)
    context = _context(root, "selftaught")
    parts = [NOTE, "# The command line\n", _help(root, context)]
    for name, command in root.commands.items():
        own = _context(command, name, parent=context)
        parts += [f"## selftaught {name}\n", _help(command, own)]
        for member, inner in getattr(command, "commands", {}).items():
            parts += [f"### selftaught {name} {member}\n", _help(inner, _context(inner, member, parent=own))]
    parts.append(ENDING)
    return "\n".join(parts)


def _context(command: Any, name: str, parent: Any = None) -> Any:
    command.rich_markup_mode = None  # plain text
    width = {"terminal_width": WIDTH, "max_content_width": WIDTH}
    return command.make_context(name, [], parent=parent, resilient_parsing=True, **width)


def _help(command: Any, context: Any) -> str:
    lines = [line.rstrip() for line in command.get_help(context).splitlines()]
    return "\n".join(["```text", *lines, "```\n"])


# ------------------------------------------------------------------------------------- configuration


def configuration() -> str:
    """Every setting: its name, type, default and meaning."""
    lines = [
        NOTE,
        "# Configuration\n",
        "A recipe is a TOML file of these settings: `selftaught learn facts.jsonl --recipe mine.toml`. Single ones",
        "are changed on the command line: `-s learning_rate=1e-4 -s teacher.kind=ema`. Unknown names are errors. The",
        "defaults are the vetted setting. Where a part comes in kinds, its `kind` decides which settings it has.\n",
    ]
    lines += _table(LearnConfig, "")
    lines += [
        "# A workspace's selftaught.toml\n",
        f"{_about(WorkspaceConfig)} `learn` is a table of the settings above.\n",
        *_table(WorkspaceConfig, ""),
    ]
    return "\n".join(lines) + "\n"


def _table(model: type[BaseModel], prefix: str) -> list[str]:
    """A model's own plain settings as a table, then each part of it under a heading of its own."""
    plain: list[Any] = []
    parts: list[Any] = []
    for name, field in model.model_fields.items():
        kinds = list(_models_in(field.annotation))
        (parts if kinds else plain).append((name, field, kinds))
    lines: list[str] = []
    if plain:
        lines += ["| setting | type | default | meaning |", "|---|---|---|---|"]
        lines += [_row(f"{prefix}{name}", field) for name, field, _ in plain]
        lines.append("")
    lines += [block for name, field, _ in plain for block in _template(f"{prefix}{name}", field)]
    for name, field, kinds in parts:
        path = f"{prefix}{name}"
        lines.append(f"### {path}\n" if prefix else f"## {path}\n")
        if "kind" not in kinds[0].model_fields:
            lines += [f"{_about(kinds[0])}\n", *_table(kinds[0], f"{path}.")]
            continue
        lines.append(f"{field.description}\n")
        default = field.default.kind
        lines += [f"| `{path}.kind` | meaning |", "|---|---|"]
        for kind in kinds:
            value = kind.model_fields["kind"].default
            mark = " (default)" if value == default else ""
            lines.append(f"| `{value}`{mark} | {_about(kind)} |")
        lines.append("")
        for kind in kinds:
            settings = {n: f for n, f in kind.model_fields.items() if n != "kind"}
            if settings:
                lines += [f"With `{path}.kind` = `{kind.model_fields['kind'].default}`:\n"]
                lines += ["| setting | type | default | meaning |", "|---|---|---|---|"]
                lines += [*(_row(f"{path}.{n}", f) for n, f in settings.items()), ""]
    return lines


def _row(path: str, field: FieldInfo) -> str:
    default = "see below" if _is_template(field) else _value(field.default)
    return f"| `{path}` | {_type(field)} | {default} | {field.description} |"


def _template(path: str, field: FieldInfo) -> list[str]:
    return [f"`{path}`:\n", "```text", str(field.default), "```\n"] if _is_template(field) else []


def _is_template(field: FieldInfo) -> bool:
    return isinstance(field.default, str) and "\n" in field.default


def _value(value: Any) -> str:
    if value is PydanticUndefined:
        return "needed"
    return "not set" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


def _type(field: FieldInfo) -> str:
    """A field's type and its bounds, in words."""
    annotation: Any = field.annotation
    bounds = []
    for item in field.metadata:
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
            if (bound := getattr(item, name, None)) is not None:
                bounds.append(f"{sign} {bound}")
    return " ".join([_type_name(annotation), ", ".join(bounds)]).strip()


def _type_name(annotation: Any) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in args)
    if origin in (Union, UnionType):
        return " or ".join(_type_name(one) for one in args if one is not type(None))
    if origin is tuple:
        return "list of texts"
    if origin is dict:
        return "table"
    names = {int: "whole number", float: "number", bool: "true or false", str: "text"}
    return names[annotation]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The configuration models that a field's type names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType, Annotated):
        for one in get_args(annotation):
            yield from _models_in(one)


def _about(model: type[BaseModel]) -> str:
    """A model's docstring in one line."""
    return " ".join((model.__doc__ or "").split())


if __name__ == "__main__":
    main()
