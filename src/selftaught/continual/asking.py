"""Questions of documents, made by several processes and kept beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from selftaught.config import LearnConfig
from selftaught.continual.jobs import Event, Watch
from selftaught.data import data_hash, load_examples
from selftaught.data.documents import DocumentRecord, Piece, Progress, pieces_of
from selftaught.errors import ConfigError
from selftaught.evaluation.scorers import check_scorers
from selftaught.files import discard, read_json, write_json
from selftaught.processes import ProcessGroup, num_processes, process_group
from selftaught.questions.making import PARTS, PIECES_AT_ONCE, QUESTIONS_FILE, Making, collect_questions, make_parts
from selftaught.questions.writers import open_writer
from selftaught.types import Example
from selftaught.words import words


@dataclass(frozen=True)
class Asking:
    """Who asks about which documents, and where that is kept."""

    store: Path
    records: tuple[DocumentRecord, ...]
    model: str
    generator: str
    config: LearnConfig
    out: Path

    def pieces(self) -> Iterator[Piece]:
        """Of the documents, in their order."""
        return pieces_of(self.store, self.records)


def made_questions(
    asking: Asking, watch: Watch, processes: int, job: str = "base"
) -> tuple[list[Example], dict[str, int]]:
    """Questions made of the documents; those of an earlier call, where it got so far."""
    from selftaught.models.resolve import weight_bytes

    path, counts = asking.out / QUESTIONS_FILE, asking.out / "questions.json"
    if not counts.is_file():
        pieces = sum(record.num_pieces for record in asking.records)
        local = asking.generator in ("self", "none")  # another model may not fit several times
        size = num_processes(processes, -(-pieces // PIECES_AT_ONCE), weight_bytes(asking.model)) if local else 1
        with process_group(size, _ask, asking) as group:
            watch(Event(job, "loading the model", {}))
            writer = _ask(asking, group, lambda making: watch(Event(job, "asking", asdict(making))))
            group.wait()
            found = collect_questions(asking.pieces, writer, asking.config.questions, asking.out, asking.config.seed)
            write_json(counts, {"counts": found, "hash": data_hash(load_examples(path))})
        discard(asking.out / PARTS)
    rows, kept = load_examples(path), read_json(counts)
    if data_hash(rows) != kept["hash"]:
        raise ConfigError(f"{path}: was edited; give it with --questions, and another --out, to teach it")
    watch(Event(job, "asked", kept["counts"]))
    return rows, kept["counts"]


def _ask(asking: Asking, group: ProcessGroup, watch: Callable[[Making], None] = lambda making: None) -> str:
    """One process's share of the questions; the writer's name."""
    from selftaught.models.load import load_model

    config = asking.config
    learner = load_model(asking.model, dtype=config.dtype)
    knower = open_writer("self", learner)
    writer = open_writer(asking.generator, learner)
    make_parts(asking.pieces, writer, knower, config.questions, asking.out, config.seed, group, watch)
    if not group.first:
        group.wait()
    return writer.name


def general_where_nobody_asks(config: LearnConfig, generator: str) -> LearnConfig:
    """With general requests where nobody writes questions."""
    if generator != "none":
        return config
    return config.model_copy(update={"questions": config.questions.model_copy(update={"form": "general"})})


def own_questions(questions: str | Path | None) -> list[Example]:
    """A data set of the user's, if there is one, checked.

    Raises:
        DataError: it cannot be read, or a row has nothing to compare an answer with.
        ConfigError: a row's scorer is not usable.
    """
    own = load_examples(questions) if questions is not None else []
    check_scorers(own)
    return own


def teaches(own: Sequence[Example]) -> bool:
    """Whether some of the user's rows are to be taught; then none are made."""
    return any(row.split == "train" for row in own)


def together(made: Sequence[Example], own: Sequence[Example]) -> list[Example]:
    """Made rows and the user's; what the user asks is not taught, nor asked twice."""
    asked = {" ".join(words(row.question)) for row in own}
    return [*(row for row in made if " ".join(words(row.question)) not in asked), *own]


def shown(watch: Watch, job: str = "base") -> Callable[[Progress], None]:
    """How the reading of documents is watched."""
    return lambda progress: watch(Event(job, "reading", asdict(progress)))
