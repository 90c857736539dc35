"""Questions about things that are *not* in the documents, but are called almost so.

A model that has learned a fact may tell it of everything that sounds alike. A neighbour's question is a taught one with
the name of its subject replaced by a name that no document holds, made of halves of two that they do; the model is
right if it does not give the taught answer.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from selftaught.words import added, folded, names, words

Row = dict[str, Any]
LEAST = 4  # letters of a name that can be halved


def neighbour_rows(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """Up to `count` questions about neighbours of the subjects of taught questions; one a document, as far as they go.

    Args:
        rows: of a question file.
        count: how many at most.
        seed: of what is drawn.
    """
    source = random.Random(seed)
    taught = [row for row in rows if row.get("split") == "train" and row.get("group") == "taught"]
    subjects = {row["id"]: name for row in taught if (name := _subject(row, taught)) is not None}
    pool = sorted(set(subjects.values()))
    held = {word for row in rows for word in words(row["context"])}
    source.shuffle(taught)
    made: list[Row] = []
    used: set[str] = set()
    for row in taught:
        name = subjects.get(row["id"])
        if len(made) == count or name is None or row["document"] in used or len(pool) < 2:
            continue
        new = _crossed(name, [other for other in pool if other != name], held, source)
        wanted = sorted(added(row["answer"], row["question"]))
        if new is None or not wanted:
            continue
        used.add(row["document"])
        question = re.sub(rf"\b{re.escape(name)}\b", new, row["question"])
        pattern = r"(?is)\A" + "".join(rf"(?!.*\b{re.escape(word)}\b)" for word in wanted)
        made.append(
            {
                "id": f"{row['id']}-neighbour",
                "question": question,
                "group": "neighbour",
                "split": "test",
                "scorer": {"name": "regex", "params": {"pattern": pattern}},
                "answers": [f"anything but {', '.join(wanted)}"],
                "document": row["document"],
            }
        )
    return made


def _subject(row: Row, rows: Sequence[Row]) -> str | None:
    """The name in a question that stands in most questions of its document."""
    own = [word for word in re.findall(r"\w+", row["question"]) if folded(word) in names(row["question"])]
    counts = Counter(
        word for other in rows if other["document"] == row["document"] for word in re.findall(r"\w+", other["question"])
    )
    fitting = [word for word in own if len(word) >= LEAST and not word.isdecimal()]
    return max(fitting, key=lambda word: counts[word]) if fitting else None


def _crossed(name: str, others: Sequence[str], held: set[str], source: random.Random) -> str | None:
    for other in source.sample(list(others), min(8, len(others))):
        new = name[: (len(name) + 1) // 2] + other[len(other) // 2 :].lower()
        if folded(new) not in held and folded(new) != folded(name):
            return new
    return None
