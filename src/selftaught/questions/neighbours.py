"""Questions about things that are *not* in the documents, but are called almost so.

A model that has learned a fact may tell it of everything that sounds alike. A neighbour's question is a taught one with
the name of its subject replaced by a name that no document holds, made of halves of two that they do; the model is
right if it does not give the taught answer.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from selftaught.questions.checking import is_rare
from selftaught.words import claims, folded, names

Row = dict[str, Any]
LEAST = 4  # letters of a name that can be halved


def neighbour_rows(
    rows: Sequence[Row], counts: Mapping[str, int], num_documents: int, count: int, seed: int
) -> list[Row]:
    """Up to `count` questions about neighbours of the subjects of taught questions; one a document, as far as they go.

    Args:
        rows: of a question file.
        counts: in how many documents each word stands.
        num_documents: how many there are.
        count: how many at most.
        seed: of what is drawn.
    """
    source = random.Random(seed)
    taught = [row for row in rows if row.get("group") == "taught"]
    subjects = {row["id"]: name for row in taught if (name := _subject(row, taught, counts, num_documents))}
    pool = sorted(set(subjects.values()))
    source.shuffle(taught)
    made: list[Row] = []
    used: set[str] = set()
    asked = {row["question"] for row in rows}
    for row in taught:
        name = subjects.get(row["id"])
        told = claims(row["answer"], row["question"], row["context"])
        wanted = sorted(word for word in told if is_rare(word, counts, num_documents))
        if len(made) == count or not name or not wanted or row["source_document"] in used:
            continue
        new = _crossed(name, [other for other in pool if other != name], counts, source)
        if new is None:
            continue
        question = re.sub(rf"\b{re.escape(name)}\b", new, row["question"])
        if question in asked:
            continue
        asked.add(question)
        used.add(row["source_document"])
        pattern = r"(?is)\A" + "".join(rf"(?!.*\b{_spelt(word)}\b)" for word in wanted)
        made.append(
            {
                "id": f"{row['id']}-neighbour",
                "question": question,
                "group": "neighbour",
                "split": "test",
                "scorer": {"name": "regex", "params": {"pattern": pattern}},
                "answers": [f"anything but {', '.join(wanted)}"],
                "source_document": row["source_document"],
            }
        )
    return made


def _subject(row: Row, rows: Sequence[Row], counts: Mapping[str, int], num_documents: int) -> str | None:
    """The rare name in a question that stands in most questions of its document."""
    said = Counter(
        word
        for other in rows
        if other["source_document"] == row["source_document"]
        for word in re.findall(r"\w+", other["question"])
    )
    named = names(row["question"])
    fitting = [
        word
        for word in re.findall(r"\w+", row["question"])
        if folded(word) in named and len(word) >= LEAST and not word[0].isdecimal()
        if is_rare(folded(word), counts, num_documents)
    ]
    return max(fitting, key=lambda word: (said[word], -counts.get(folded(word), 0))) if fitting else None


def _crossed(name: str, others: Sequence[str], counts: Mapping[str, int], source: random.Random) -> str | None:
    """The first half of a name with the second half of another, that no document holds."""
    for other in source.sample(list(others), min(8, len(others))):
        new = name[: (len(name) + 1) // 2] + other[len(other) // 2 :].lower()
        if folded(new) not in counts and folded(new) != folded(name):
            return new
    return None


def _spelt(word: str) -> str:
    """A pattern for a word, or for a number with or without commas."""
    return ",?".join(word) if word.isdecimal() else re.escape(word)
