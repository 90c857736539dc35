"""One row of a data set, checked and made an example.

The errors raised here say what is wrong and how to mend it; `formats` puts the file and the row's
place in front.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from selftaught.errors import DataError
from selftaught.types import SCORER_NAMES, Example, Message, Role, Scorer, Split

# A row that fits several is read as the first: hub data sets often keep the bare prompt beside the messages.
FORMATS = (("messages",), ("prompt", "completion"), ("prompt", "privileged_context"), ("question", "answer"))
REQUIRED = tuple(dict.fromkeys(column for columns in FORMATS for column in columns))
OPTIONAL = ("system", "context", "id", "answers", "scorer", "group", "split", "source_document", "said", "feedback")
FORMATS_HINT = "a row needs " + ", or ".join(" + ".join(columns) for columns in FORMATS)

SPLITS: Mapping[str, Split] = {"train": "train", "validation": "validation", "eval": "validation", "test": "test"}
ROLES: Mapping[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
MAX_PARAM_DEPTH = 16


def example_of(cells: Any, number: int, split: Split = "train", scorer: Scorer | None = None) -> Example:
    """Checks one row and makes it an example.

    Args:
        cells: the row, by column. None and blank text count as absent.
        number: names the row, as "row-<number>", if it has no id.
        split: the split of a row that names none.
        scorer: the scorer of a row that names none.

    Returns:
        The example.

    Raises:
        DataError: the row is not usable; the message lacks the file and the row's place.
    """
    if not isinstance(cells, Mapping):
        raise DataError(f"is {_kind(cells)}, not an object; write each row as {{column: value, …}}")
    row = {name: value for name, value in cells.items() if not _is_blank(value)}
    split = _split(row["split"]) if "split" in row else split
    prompt, demonstration = _conversation(row, list(cells))
    if demonstration is None and split == "train":
        raise DataError(_no_demonstration(row))
    return Example(
        id=_id(row["id"]) if "id" in row else f"row-{number}",
        prompt=prompt,
        demonstration=demonstration,
        context=_text(row["context"], "context") if "context" in row else None,
        answers=_answers(row.get("answers", [])),
        scorer=_scorer(row["scorer"]) if "scorer" in row else scorer,
        group=_text(row["group"], "group").strip() if "group" in row else "direct",
        split=split,
        source=_text(row["source_document"], "source_document").strip() if "source_document" in row else None,
        said=_text(row["said"], "said") if "said" in row else None,
        feedback=_text(row["feedback"], "feedback") if "feedback" in row else None,
    )


class Register:
    """The rows seen so far, to find those that occur twice."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}
        self._rows: dict[tuple[tuple[Message, ...], str | None], str] = {}

    def add(self, example: Example, place: str) -> None:
        """Notes an example and its place.

        Raises:
            DataError: its id, or its prompt with the same demonstration, was there before.
        """
        first = self._ids.setdefault(example.id, place)
        if first != place:
            raise DataError(f"id {_short(example.id)} is also that of {first}; give each row an id of its own")
        first = self._rows.setdefault((example.prompt, example.demonstration), place)
        if first != place:
            raise DataError(f"has the same prompt and demonstration as {first}; remove one of the two")


def data_hash(examples: Sequence[Example]) -> str:
    """SHA-256 of the examples, in their order, whatever the format of the file they came from.

    Args:
        examples: the examples.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for example in examples:
        row = {
            "id": example.id,
            "prompt": [[message.role, message.content] for message in example.prompt],
            "demonstration": example.demonstration,
            "context": example.context,
            "answers": list(example.answers),
            "scorer": example.scorer and [example.scorer.name, _canonical(example.scorer.params)],
            "group": example.group,
            "split": example.split,
            **({"source_document": example.source} if example.source else {}),
            **({"said": example.said or "", "feedback": example.feedback} if example.feedback else {}),
        }
        digest.update(json.dumps(row, sort_keys=True, separators=(",", ":")).encode("ascii") + b"\n")
    return digest.hexdigest()


def _canonical(value: Any) -> Any:
    """Parquet has one number type a column, so 1 may come back as 1.0."""
    if isinstance(value, Mapping):
        return {name: _canonical(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


# ------------------------------------------------------------------------------ prompt, demonstration


def _conversation(row: Mapping[str, Any], found: list[str]) -> tuple[tuple[Message, ...], str | None]:
    """The prompt and the demonstration of a row, by whichever columns it has."""
    if "messages" in row:
        turns = _messages(row["messages"], "messages", blank_end=True)
        prompt, demonstration = _without_demonstration(turns)
        return _prompt(prompt, "messages", row), demonstration
    if "prompt" in row and "completion" in row:
        return _prompt(row["prompt"], "prompt", row), _completion(row["completion"])
    if "prompt" in row and "privileged_context" in row:
        return _prompt(row["prompt"], "prompt", row), _privileged_context(row["privileged_context"])
    if "question" in row and "answer" in row:
        question = _text(row["question"], "question")
        return _prompt(question, "question", row), _text_or_number(row["answer"], "answer")
    alone = [name for name in REQUIRED if name in row]
    if alone in (["prompt"], ["question"]):  # a test row may lack the other column
        text = row["prompt"] if alone == ["prompt"] else _text(row["question"], "question")
        return _prompt(text, alone[0], row), None
    raise DataError(_wrong_columns(row, found))


def _prompt(value: Any, name: str, row: Mapping[str, Any]) -> tuple[Message, ...]:
    """A prompt given as text or as turns, with the row's system turn in front."""
    turns: Sequence[Message]
    if isinstance(value, tuple):
        turns = value
    elif isinstance(value, list):
        turns = _messages(value, name)
    else:
        turns = (Message("user", _text(value, name)),)
    if "system" in row:
        system = Message("system", _text(row["system"], "system"))
        if turns and turns[0].role == "system" and turns[0] != system:
            raise DataError(f"has a system column and another system turn in {name}; keep one of the two")
        turns = turns if turns and turns[0].role == "system" else (system, *turns)
    _check_order(turns, name)
    return tuple(turns)


def _without_demonstration(turns: tuple[Message, ...]) -> tuple[tuple[Message, ...], str | None]:
    if turns[-1].role != "assistant":
        return turns, None
    return turns[:-1], turns[-1].content if turns[-1].content.strip() else None


def _check_order(turns: Sequence[Message], name: str) -> None:
    """A system turn may open; then user and assistant take turns, and the user has the last word."""
    opening = 1 if turns and turns[0].role == "system" else 0
    for number, turn in enumerate(turns[opening:], start=opening + 1):
        if turn.role == "system":
            raise DataError(f"{name}: turn {number} is a system turn; only the first may be, so move or remove it")
        expected = "user" if (number - opening) % 2 else "assistant"
        if turn.role != expected:
            raise DataError(
                f"{name}: turn {number} is {turn.role!r} where {expected!r} is due; "
                "user and assistant must take turns, so merge or remove turns"
            )
    if len(turns) == opening or turns[-1].role != "user":
        raise DataError(f"{name}: the prompt does not end with a user turn; put one there for the model to answer")


def _messages(value: Any, name: str, *, blank_end: bool = False) -> tuple[Message, ...]:
    """Turns from a list of {role, content}; `blank_end` lets the last assistant turn be blank."""
    if not isinstance(value, list):
        raise DataError(f"{name} is {_kind(value)}; write a list of {{role, content}} turns (in JSONL or Parquet)")
    if not value:
        raise DataError(f"{name} is an empty list; give it at least a user turn")
    turns = []
    for number, turn in enumerate(value, start=1):
        if not isinstance(turn, Mapping) or "role" not in turn or "content" not in turn:
            raise DataError(f"{name}: turn {number} is not an object with role and content; write it so")
        role = ROLES.get(turn["role"]) if isinstance(turn["role"], str) else None
        if role is None:
            raise DataError(f"{name}: turn {number} has the role {_short(turn['role'])}; use {', '.join(ROLES)}")
        may_be_blank = blank_end and number == len(value) and role == "assistant"
        text = turn["content"]
        text = "" if may_be_blank and text is None else _text(text, f"{name}: content of turn {number}", may_be_blank)
        turns.append(Message(role, text))
    return tuple(turns)


def _completion(value: Any) -> str:
    if not isinstance(value, list):
        return _text_or_number(value, "completion")
    turns = _messages(value, "completion")
    if len(turns) != 1 or turns[0].role != "assistant":
        raise DataError("completion must be one assistant turn; move earlier turns into prompt")
    return turns[0].content


def _privileged_context(value: Any) -> str:
    if not isinstance(value, list):
        return _text(value, "privileged_context")
    return "\n\n".join(turn.content for turn in _messages(value, "privileged_context"))


# ---------------------------------------------------------------------------------- optional columns


def _answers(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise DataError(f'answers is {_kind(value)}; write a list of texts, for example ["Paris"]')
    if any(_is_blank(answer) for answer in value):
        raise DataError("answers has a blank entry; remove it")
    return tuple(_text_or_number(answer, "answers") for answer in value)


def _scorer(value: Any) -> Scorer:
    if isinstance(value, str):
        return Scorer(_scorer_name(value.strip()))
    if not isinstance(value, Mapping) or "name" not in value:
        raise DataError(f'scorer is {_kind(value)}; write a name, or {{"name": …, "params": {{…}}}}')
    unknown = [key for key in value if key not in ("name", "params")]
    if unknown:
        raise DataError(f"scorer: unknown key {_short(unknown[0])}; put a scorer's parameters under params")
    params = value.get("params") or {}
    if not isinstance(params, Mapping):
        raise DataError(f"scorer: params is {_kind(params)}; write an object")
    given = {key: item for key, item in params.items() if item is not None}  # Parquet fills up with nulls
    return Scorer(_scorer_name(value["name"]), _param(given))


def _scorer_name(name: Any) -> str:
    if name not in SCORER_NAMES:
        close = get_close_matches(name, SCORER_NAMES, n=1) if isinstance(name, str) else []
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise DataError(f"unknown scorer {_short(name)}; {hint}use one of {', '.join(SCORER_NAMES)}")
    return str(name)


def _param(value: Any, depth: int = 0) -> Any:
    """A scorer's parameter: what JSON can hold, without what a file or a terminal cannot."""
    if depth > MAX_PARAM_DEPTH:
        raise DataError("scorer: params are nested too deeply; make them flatter")
    if isinstance(value, Mapping):
        return {_text(key, "scorer: a params key"): _param(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_param(item, depth + 1) for item in value]
    if isinstance(value, str):
        return _text(value, "scorer: a params value", may_be_blank=True)
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise DataError(f"scorer: params hold {_kind(value)}; use texts, finite numbers, true/false, lists and objects")


def _split(value: Any) -> Split:
    split = SPLITS.get(value.strip().lower()) if isinstance(value, str) else None
    if split is None:
        raise DataError(f"unknown split {_short(value)}; use train, validation (or eval) or test")
    return split


def _id(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(value, "id").strip()


# -------------------------------------------------------------------------------------------- values


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _text(value: Any, name: str, may_be_blank: bool = False) -> str:
    if not isinstance(value, str):
        raise DataError(f"{name} is {_kind(value)}; write it as text")
    if not may_be_blank and not value.strip():
        raise DataError(f"{name} is empty; give it text")
    if "\0" in value:
        raise DataError(f"{name} holds a NUL character at position {value.index(chr(0))}; remove it")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        code = f"U+{ord(value[error.start]):04X}"
        raise DataError(
            f"{name} holds half a character (lone surrogate {code}) at position {error.start}; remove it"
        ) from error
    return value


def _text_or_number(value: Any, name: str) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise DataError(f"{name} is {value}, not a finite number; write what is meant as text")
        return str(value)
    return _text(value, name)


def _kind(value: Any) -> str:
    """What a value is, in the words of someone who writes data files."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, Mapping):
        return "an object"
    return "text" if isinstance(value, str) else f"a value of type {type(value).__name__}"


def _short(value: Any) -> str:
    """A value as it may stand in a one-line message: escaped, and not long."""
    text = repr(value) if isinstance(value, (str, int, float)) else _kind(value)
    return text if len(text) <= 60 else text[:60] + "…"


def _no_demonstration(row: Mapping[str, Any]) -> str:
    if "messages" in row:
        return "has no answer to learn from; end messages with an assistant turn, or set split to test"
    column = "answer" if "question" in row else "completion"
    return f"has no answer to learn from; fill the column {column!r}{_near_misses(row)}, or set split to test"


def check_columns(cells: Any) -> None:
    """Finds an optional column that was misspelt, and would be passed over.

    Raises:
        DataError: an unknown column is named almost like an optional one that the row lacks.
    """
    if not isinstance(cells, Mapping):
        return
    missing = [name for name in OPTIONAL if name not in cells]
    for name in cells:
        if name not in REQUIRED and name not in OPTIONAL:
            close = get_close_matches(str(name).strip().lower(), missing, n=1, cutoff=0.85)
            if close:
                raise DataError(f"has an unknown column {_short(name)}; did you mean {close[0]}? Rename it")


def _wrong_columns(row: Mapping[str, Any], found: list[str]) -> str:
    empty = [name for name in found if name in REQUIRED and name not in row]
    listed = ", ".join(_short(name) for name in found[:12]) + (", …" if len(found) > 12 else "")
    blank = f" ({', '.join(empty)} empty)" if empty else ""
    return f"has the columns {listed or 'none'}{blank}{_near_misses(row)}; {FORMATS_HINT}"


def _near_misses(row: Mapping[str, Any]) -> str:
    """The unknown columns whose names are almost those of missing ones, as a question in brackets."""
    missing = [name for name in REQUIRED if name not in row]
    unknown = [name for name in row if name not in REQUIRED and name not in OPTIONAL]
    close = [(name, get_close_matches(name.strip().lower(), missing, n=1, cutoff=0.75)) for name in unknown]
    pairs = [f"{names[0]!r} for {_short(name)}" for name, names in close if names]
    return f" (did you mean {', '.join(pairs)}?)" if pairs else ""
