"""Examples as JSON lines, and back: the form in which a skill's rows are kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from selftaught.data.validate import example_of
from selftaught.types import Example


def to_json_lines(examples: Sequence[Example]) -> str:
    """One object a line, in the format `prompt` + `completion` that every reader here takes."""
    return "".join(json.dumps(_row(example), ensure_ascii=False) + "\n" for example in examples)


def from_json_lines(text: str) -> list[Example]:
    """The examples that `to_json_lines` wrote."""
    return [example_of(json.loads(line), number) for number, line in enumerate(text.split("\n"), start=1) if line]


def _row(example: Example) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": example.id,
        "prompt": [{"role": message.role, "content": message.content} for message in example.prompt],
        "completion": example.demonstration,
        "context": example.context,
        "answers": list(example.answers),
        "scorer": example.scorer and {"name": example.scorer.name, "params": dict(example.scorer.params)},
        "group": example.group,
        "split": example.split,
        "source_document": example.source,
        "said": example.said,
        "feedback": example.feedback,
    }
    return {name: value for name, value in row.items() if value not in (None, [])}
