"""Tool use: a request and functions' schemas, answered by one call in JSON.

The rows are those of the Berkeley Function-Calling Leaderboard that one call answers. Rows that share a
function, called or only offered, always lie in the same split, so that no function of the test is ever
taught.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from selftaught.data.packages import read_member, wheel
from selftaught.data.skills.built import BuiltSkill, built, shuffled
from selftaught.types import Example, Message, Scorer, Split

PACKAGE = "bfcl-eval==2026.3.23"
SHA256 = "3bb6dfa5f0c68ad403c9ec50b00db2bb3b4cc9b38ab1ff33f48fe30d853d3a0a"
FILES = {"simple": "simple_python", "multiple": "multiple", "live": "live_simple"}  # group: the leaderboard's name
INSTRUCTION = 'Answer with one line of JSON: {"name": the function\'s name, "arguments": {its arguments}}.'

MAX_CHARACTERS = 1300  # of request and schemas, about 350 tokens
MAX_ANSWER = 220  # characters of the accepted values; the longest answer bounds how long every model may ramble
MAX_OF_A_FAMILY = 4  # rows that share functions; one function of the live rows is called 28 times
SIZES: dict[Split, dict[str, int]] = {
    "test": {"simple": 90, "multiple": 30, "live": 40},
    "validation": {"simple": 25, "multiple": 7, "live": 8},
    "train": {"simple": 240, "multiple": 60, "live": 60},
}

Row = dict[str, Any]


def build() -> BuiltSkill:
    """Builds the skill.

    Raises:
        DataError: the package cannot be had.
    """
    rows = [row for group in FILES for row in read_rows(group) if _is_short(row)]
    examples = _split(rows)
    return built("tools", TITLE, examples, FACTS, _ceiling(examples))


def read_rows(group: str) -> list[Row]:
    """The leaderboard's rows of one group, each with its group and accepted answer.

    Args:
        group: "simple", "multiple" or "live".

    Raises:
        DataError: the package cannot be had.
    """
    path, name = wheel(PACKAGE, SHA256), f"BFCL_v4_{FILES[group]}.json"
    questions = _json_lines(read_member(path, f"bfcl_eval/data/{name}"))
    answers = _json_lines(read_member(path, f"bfcl_eval/data/possible_answer/{name}"))
    accepted = {row["id"]: row["ground_truth"][0] for row in answers}
    return [{**row, "group": group, "accepted": accepted[row["id"]]} for row in questions]


def tool_example(row: Row, split: Split = "train") -> Example:
    """One row as a question; the demonstration is the call, with the first accepted value of each argument.

    Args:
        row: as `read_rows` gives it.
        split: where it belongs.
    """
    ((name, arguments),) = row["accepted"].items()
    return Example(
        id=row["id"],
        prompt=(Message("user", f"{_request(row)}\n\n{_schemas(row)}\n\n{INSTRUCTION}"),),
        demonstration=json.dumps({"name": name, "arguments": _arguments(arguments)}, ensure_ascii=False),
        answers=(json.dumps(row["accepted"], ensure_ascii=False),),
        scorer=Scorer("tool_call"),
        group=row["group"],
        split=split,
    )


def _request(row: Row) -> str:
    """What is asked; a few rows have a system turn in front of it."""
    return "\n\n".join(turn["content"].strip() for turn in row["question"][0])


def _schemas(row: Row) -> str:
    return "\n".join(json.dumps(schema, ensure_ascii=False, separators=(",", ":")) for schema in row["function"])


def _is_short(row: Row) -> bool:
    answer = json.dumps(row["accepted"])
    return len(_request(row)) + len(_schemas(row)) <= MAX_CHARACTERS and len(answer) <= MAX_ANSWER


def _arguments(accepted: dict[str, list[Any]]) -> dict[str, Any]:
    """The first accepted value of each argument, without those that may be left out: they accept "" as well."""
    return {name: _resolved(values[0]) for name, values in accepted.items() if "" not in values}


def _resolved(value: Any) -> Any:
    """An accepted value; objects inside it list accepted values again."""
    if isinstance(value, dict):
        return _arguments(value)
    return [_resolved(item) for item in value] if isinstance(value, list) else value


def _json_lines(data: bytes) -> list[Row]:
    return [json.loads(line) for line in data.decode("utf-8").splitlines()]


# --------------------------------------------------------------------------------------------- split


def _split(rows: Sequence[Row]) -> list[Example]:
    """Whole families go to the first split, test first, that still needs rows of their groups."""
    needed = {split: dict(sizes) for split, sizes in SIZES.items()}
    examples = []
    for family in shuffled(families(rows), lambda family: family[0]["id"], "tools"):
        members = shuffled(family, lambda row: row["id"], "tools")[:MAX_OF_A_FAMILY]
        groups = Counter(row["group"] for row in members)
        for split, sizes in needed.items():
            if all(sizes[group] >= count for group, count in groups.items()):
                needed[split] = {group: size - groups[group] for group, size in sizes.items()}
                examples += [tool_example(row, split) for row in members]
                break
    return examples


def families(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows in families: two that name the same function, called or offered, are of one family."""
    family_of: dict[str, list[Row]] = {}
    for row in rows:
        names = [schema["name"] for schema in row["function"]]  # no set: its order differs from run to run
        known = {id(family_of[name]): family_of[name] for name in names if name in family_of}
        merged = [*chain.from_iterable(known.values()), row]
        for member in merged:
            for schema in member["function"]:
                family_of[schema["name"]] = merged
    return list({id(family): family for family in family_of.values()}.values())


# ---------------------------------------------------------------------------------------------- card

TITLE = "Tool calls"
FACTS = {
    "source": PACKAGE,
    "licence": "Apache-2.0",
    "about": (
        "Requests to one function, from the Berkeley Function-Calling Leaderboard: the model reads the schemas of one "
        "to four functions and writes one call in JSON. A call is right when function and arguments are among those "
        "that the leaderboard accepts. Groups: simple (one function), multiple (choose among several), live (requests "
        "that users wrote)."
    ),
    "split": (
        "By function: rows that name the same function, called or only offered, lie in the same split, so the test "
        "asks for functions that were never taught."
    ),
}


def _ceiling(examples: Sequence[Example]) -> tuple[float, str]:
    """The share of test rows whose required values a reader can find in the prompt."""
    tests = [example for example in examples if example.split == "test"]
    guessed = [example for example in tests if not _is_readable(json.loads(example.answers[0]), example.question)]
    why = (
        f"{len(guessed)} of {len(tests)} test rows want a text that stands nowhere in the prompt, such as a date in a "
        "form of the leaderboard's own; some of those can still be inferred"
    )
    return 1 - len(guessed) / max(1, len(tests)), why


def _is_readable(accepted: dict[str, dict[str, list[Any]]], prompt: str) -> bool:
    """Whether each text that a call must have is part of its prompt; numbers may be computed."""
    wanted = [values for arguments in accepted.values() for values in arguments.values() if "" not in values]
    return all(any(_occurs(value, prompt.lower()) for value in values) for values in wanted)


def _occurs(value: Any, prompt: str) -> bool:
    if isinstance(value, dict):
        return all(any(_occurs(option, prompt) for option in options) for options in value.values())
    if isinstance(value, list):
        return all(_occurs(item, prompt) for item in value)
    return not isinstance(value, str) or value.lower() in prompt
