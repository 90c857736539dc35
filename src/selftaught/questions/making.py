"""Makes the questions: some pieces at a time, each batch's in a file of its own, so that a kill costs one batch."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from selftaught.config import QuestionConfig
from selftaught.data.documents import Piece
from selftaught.errors import DataError
from selftaught.files import read_json, write_json, write_text
from selftaught.processes import ALONE, ProcessGroup
from selftaught.questions.checking import AGAIN, spread
from selftaught.questions.direct import direct_questions, tellings
from selftaught.questions.kinds import NEED_OTHERS, questions_in_words
from selftaught.questions.means import Means
from selftaught.questions.neighbours import neighbour_rows
from selftaught.questions.retrieval import Retriever
from selftaught.questions.rows import Row
from selftaught.questions.writers import Writer
from selftaught.words import words

QUESTIONS_FILE, REJECTED_FILE, PARTS = "questions.jsonl", "rejected.jsonl", "questions.parts"
PIECES_AT_ONCE = 8
REJECTED_FIELDS = ("question", "answer", "source_document", "piece")


@dataclass(frozen=True)
class Making:
    """How far the questions are.

    Attributes:
        done: pieces done.
        total: of how many.
        kept: questions kept so far.
        rejected: and rejected.
        seconds_left: till all are made, by the pieces made in this run; None before the first.
    """

    done: int
    total: int
    kept: int = 0
    rejected: int = 0
    seconds_left: float | None = None


def make_parts(
    pieces: Callable[[], Iterable[Piece]],
    writer: Writer,
    learner: Writer,
    config: QuestionConfig,
    folder: Path,
    seed: int = 0,
    processes: ProcessGroup = ALONE,
    watch: Callable[[Making], None] = lambda making: None,
) -> None:
    """Writes this process's share of the batches, each to a file; `collect_questions` puts them together.

    Pieces that were done before an interruption are not done again.

    Args:
        pieces: gives the pieces, as often as it is called.
        writer: writes questions and answers them with the pieces in view.
        learner: the model that is taught; asked what it knows already.
        config: how many, of which kinds, and how they are checked.
        folder: where the files go, in a folder of their own; made if missing.
        seed: of what is drawn.
        processes: who make them together, each its share.
        watch: told how far it is.
    """
    others = config.form == "questions" and not NEED_OTHERS.isdisjoint(config.kinds)
    retriever = Retriever(pieces()) if others else None
    means = Means(writer, learner, config, seed, *spread(pieces()), retriever)
    total = sum(1 for _ in pieces())
    parts = folder / PARTS
    parts.mkdir(parents=True, exist_ok=True)
    watch(Making(0, total))
    begun, made = time.monotonic(), 0
    done = num_kept = num_rejected = 0
    for number, batch in enumerate(_batches(pieces())):
        path = parts / _part(batch, writer.name, config, seed)
        if not path.is_file() and number % processes.size == processes.rank:
            kept, rejected = (tellings if config.form == "general" else _asked)(batch, means)
            write_json(path, {"kept": kept, "rejected": rejected})
            made += len(batch)
        done += len(batch)
        if path.is_file():  # or it is another's, still at work
            found = read_json(path)
            num_kept, num_rejected = num_kept + len(found["kept"]), num_rejected + len(found["rejected"])
            each = (time.monotonic() - begun) / (made * processes.size) if made else None  # all are as fast as this one
            watch(Making(done, total, num_kept, num_rejected, None if each is None else each * (total - done)))


def _asked(batch: Sequence[Piece], means: Means) -> tuple[list[Row], list[Row]]:
    """Questions of all kinds; pieces of which none is to be taught are told of in answer to general requests."""
    kept, rejected = direct_questions(batch, means) if "direct" in means.config.kinds else ([], [])
    more, refused = questions_in_words(batch, means, kept)
    kept, rejected = kept + more, rejected + refused
    taught = {row["piece"] for row in kept if row["split"] == "train"}
    told, refused = tellings([piece for piece in batch if piece.id not in taught], means)
    return kept + told, rejected + refused


def collect_questions(
    pieces: Callable[[], Iterable[Piece]], writer: str, config: QuestionConfig, folder: Path, seed: int = 0
) -> Mapping[str, int]:
    """Puts the batches' files together: `questions.jsonl`, and `rejected.jsonl` with the reason of each not kept.

    The former is a data set that every command reads.

    Args:
        pieces: as they were given to `make_parts`, as are the others but
        writer: its name.
        config: how many, of which kinds, and how they are checked.
        folder: where the files are.
        seed: of what is drawn.

    Returns:
        How many were kept ("kept"), how many ask about neighbours besides ("neighbours"), and of each reason how many
        were rejected.

    Raises:
        DataError: no question was kept.
    """
    kept: list[Row] = []
    rejected: list[Row] = []
    seen: set[str] = set()
    for batch in _batches(pieces()):
        found = read_json(folder / PARTS / _part(batch, writer, config, seed))
        rejected += found["rejected"]
        for row in found["kept"]:
            key = " ".join(words(row["question"]))
            if key in seen:  # of another piece
                rejected.append({name: row[name] for name in REJECTED_FIELDS} | {"reason": AGAIN})
            else:
                seen.add(key)
                kept.append(row)
    if not kept:
        reasons = ", ".join(f"{count} × {reason}" for reason, count in _reasons(rejected).most_common(3))
        what, simpler = ("question", "--generator none, ") if config.form == "questions" else ("telling", "")
        raise DataError(
            f"{folder}: no {what} was good enough ({reasons}); try {simpler}a bigger --generator, or --questions"
        )
    neighbours = neighbour_rows(kept, *spread(pieces()), config.neighbours, seed)
    write_text(folder / REJECTED_FILE, _lines(rejected))
    write_text(folder / QUESTIONS_FILE, _lines([*kept, *neighbours]))
    return {"kept": len(kept), "neighbours": len(neighbours), **_reasons(rejected)}


def _reasons(rejected: Sequence[Row]) -> Counter[str]:
    return Counter(row["reason"] for row in rejected)


def _batches(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    source = iter(pieces)
    while batch := list(islice(source, PIECES_AT_ONCE)):
        yield batch


def _part(batch: Sequence[Piece], writer: str, config: QuestionConfig, seed: int) -> str:
    """The name of a batch's file."""
    told = [[piece.id for piece in batch], writer, config.model_dump(mode="json"), seed]
    return f"{hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]}.json"


def _lines(rows: Sequence[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
