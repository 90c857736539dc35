"""From documents to knowledge: read them, make questions, teach those, and measure.

documents → pieces → questions, each checked → a data set as any other → `learn`
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from selftaught.config import DISTILLING, FullWeights, LearnConfig, LoraWeights, Method
from selftaught.continual.jobs import Event, Watch
from selftaught.continual.learn import STORE, run_folder, taught_and_reported
from selftaught.continual.workspace import Workspace
from selftaught.data import data_hash, load_examples
from selftaught.data.documents import DocumentRecord, Piece, Progress, pieces_of, read_documents
from selftaught.data.documents.walk import printable
from selftaught.distributed import working_group
from selftaught.errors import ConfigError
from selftaught.evaluation.knowledge import grade
from selftaught.evaluation.scorers import check_scorers
from selftaught.files import discard, read_json, write_json
from selftaught.processes import ALONE, ProcessGroup
from selftaught.questions.making import (
    PARTS,
    PIECES_AT_ONCE,
    QUESTIONS_FILE,
    REJECTED_FILE,
    Making,
    collect_questions,
    make_parts,
)
from selftaught.questions.writers import check_generator, open_writer
from selftaught.types import Example
from selftaught.words import words

DOCUMENTS_FILE = "documents.json"


def learn_documents(
    documents: str | Path,
    model: str = "smollm2-135m",
    out: str | Path = "runs/learn",
    config: LearnConfig | None = None,
    generator: str = "self",
    questions: str | Path | None = None,
    beside: Sequence[Method] = (),
    resume: bool = False,
    watch: Watch = lambda event: None,
    processes: int = 0,
) -> dict[str, Any]:
    """Teaches a model what documents say, and measures what that gained and cost.

    Args:
        documents: a file, or a folder with all in it: text, Markdown, HTML, PDF, Word, CSV.
        model: what to teach: an embedded name, a directory, or a hub id.
        out: folder for `questions.jsonl`, `rejected.jsonl`, `documents.json` and all that `learn` leaves.
        config: how; `config.questions` says how questions are made.
        generator: who writes the questions: "self" (the model that is taught), "none" (general requests instead), a
            model's name or folder, or "http://…/v1#model".
        questions: a data set of the user's own: rows to teach replace the made ones, others are asked besides. Rows
            without a document get the piece that fits them best.
        beside: methods that are taught the same, and measured beside it, with their defaults: "oracle" is the model
            with the right piece in its prompt.
        resume: go on with an interrupted run in `out`.
        watch: told what happens.
        processes: how many train it together; 0 is one for each core that a batch has rows for.

    Returns:
        The report, as `learn` returns it, with "documents" (what became of each file), "questions" (how many were
        kept and rejected, and why) and "knowledge" (of each run and group: {"strict", "lenient"}, see
        `evaluation.knowledge`).

    Raises:
        SelftaughtError: with one line that says what is wrong and how to mend it.
    """
    from selftaught.models.resolve import resolve_model

    config, model, out = _asking_config(config or LearnConfig(), generator), str(model), Path(out)
    own = load_examples(questions) if questions is not None else []
    check_scorers(own)
    check_generator(generator)
    others = [_other(config, method) for method in beside]
    for one in others:
        one.resolve(1, 1)
    request = {
        "documents": printable(str(Path(documents).absolute())),
        "model": model,
        "generator": generator,
        "questions": data_hash(own) if own else None,
        "beside": list(beside),
        "config": config.model_dump(mode="json"),
    }
    with run_folder(out, request, resume):
        resolve_model(model)  # before anything is left in the folder
        records = _read(Path(documents), out, watch)
        made: list[Example] = []
        counts: dict[str, int] = {}
        if not any(row.split == "train" for row in own):
            path = str(resolve_model(model))
            asking = _Asking(out / STORE, tuple(records), path, generator, config, out)
            made, counts = _made(asking, watch, processes)
        rows = _together(made, _with_pieces(own, records, out / STORE))

        def more(done: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
            told = [asdict(record) for record in records]
            return {"documents": told, "questions": counts, "knowledge": graded(rows, done)}

        name = printable(Path(documents).name)
        return taught_and_reported(rows, name, model, out, config, watch, processes, others, more)


def _asking_config(config: LearnConfig, generator: str) -> LearnConfig:
    """With general requests where nobody writes questions."""
    if generator != "none":
        return config
    return config.model_copy(update={"questions": config.questions.model_copy(update={"form": "general"})})


def _together(made: Sequence[Example], own: Sequence[Example]) -> list[Example]:
    """Made rows and the user's; what the user asks is not taught, nor asked twice."""
    asked = {" ".join(words(row.question)) for row in own}
    return [*(row for row in made if " ".join(words(row.question)) not in asked), *own]


def _other(config: LearnConfig, method: Method) -> LearnConfig:
    """Another method's defaults, for the same rows; every weight is trained where nothing is distilled."""
    weights = LoraWeights() if method in DISTILLING else FullWeights()
    kept = ("seed", "epochs", "steps", "prompts", "questions", "rollout", "dtype", "probes")
    return LearnConfig(method=method, weights=weights, **{name: getattr(config, name) for name in kept})


def graded(rows: Sequence[Example], done: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Of each run and group the strict and the lenient accuracy."""
    examples = {row.id: row for row in rows}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for record in done:
        grades: dict[str, list[tuple[bool, bool]]] = {}
        for item in record["results"]:
            one = examples[item["id"]]
            grades.setdefault(one.group, []).append(grade(item["completion"], one))
        found[record["name"]] = {
            group: {"strict": fmean(strict for strict, _ in all_of), "lenient": fmean(free for _, free in all_of)}
            for group, all_of in grades.items()
        }
    return found


def _read(documents: Path, out: Path, watch: Watch) -> list[DocumentRecord]:
    """The documents' records, and the same ones when the run is gone on with.

    Raises:
        ConfigError: a document has changed since the run began.
    """
    records = read_documents(documents, out / STORE, leave_out=out, watch=_shown(watch))
    told = [asdict(record) for record in records]
    path = out / DOCUMENTS_FILE
    if path.is_file() and (changed := _changed(read_json(path), told)):
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise ConfigError(
            f"{documents}: {changed[0]}{more} has changed since the run in {out} began; put it back, "
            "or choose another --out to teach it anew"
        )
    write_json(path, told)
    watch(Event("base", "documents", {"records": told}))
    return records


def _changed(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> list[str]:
    """The files that were added, removed or changed, of those of which something is taught."""
    old, new = ({(one["path"], one["digest"]) for one in records if one["num_pieces"]} for records in (before, now))
    return sorted({path for path, _ in old ^ new})


def _shown(watch: Watch, job: str = "base") -> Callable[[Progress], None]:
    return lambda progress: watch(Event(job, "reading", asdict(progress)))


def documents_skill(
    workspace: Workspace,
    name: str,
    documents: str | Path,
    config: LearnConfig,
    generator: str = "self",
    questions: str | Path | None = None,
    watch: Watch = lambda event: None,
    processes: int = 0,
) -> tuple[list[Example], str, dict[str, Any]]:
    """The rows of a skill made of documents, as `registry.load_skill` gives those of a data set.

    Where a skill was made of the same folder before, only documents that are new or have changed since are asked
    about: what changed is found by the hash of each file's content.

    Args:
        workspace: whose HEAD writes the questions, unless `generator` says otherwise, and is asked what it knows.
        name: of the skill.
        documents: a file or a folder.
        config: how questions are made.
        generator: see `learn_documents`.
        questions: see `learn_documents`.
        watch: told what happens.
        processes: how many write the questions; 0 is one a core.

    Returns:
        The rows, where they come from, and the start of a card.

    Raises:
        ConfigError: nothing has changed since a skill was made of it.
        SelftaughtError: with one line that says what is wrong and how to mend it.
    """
    config, place = _asking_config(config, generator), Path(documents).absolute()
    source = printable(str(place))
    own = load_examples(questions) if questions is not None else []
    check_scorers(own)
    check_generator(generator)
    folder = workspace.runs.parent / STORE / hashlib.sha256(source.encode()).hexdigest()[:16]
    records = read_documents(place, folder / STORE, watch=_shown(watch, "head"))
    watch(Event("head", "documents", {"records": [asdict(record) for record in records]}))
    earlier = [skill for skill in workspace.ledger.skills() if skill.source == source and "documents" in skill.card]
    taught = {told["digest"] for skill in earlier for told in skill.card["documents"]}
    chosen = [record for record in records if record.digest not in taught]
    teaches = any(row.split == "train" for row in own)
    if not teaches and not any(record.num_pieces for record in chosen):
        names = " and ".join(skill.name for skill in earlier)
        raise ConfigError(f"{documents}: nothing has changed since {names} was made of it; add or change a document")
    made: list[Example] = []
    counts: dict[str, int] = {}
    model = str(workspace.model_folder(workspace.ledger.head()))
    key = [sorted(record.digest for record in chosen), generator, model, config.seed, config.questions.model_dump()]
    out = folder / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]  # the same again after a kill
    if not teaches:
        asking = _Asking(folder / STORE, tuple(chosen), model, generator, config, out)
        made, counts = _made(asking, watch, processes, "head")
    rows = _together(made, _with_pieces(own, records, folder / STORE))
    told = [{"path": one.path, "digest": one.digest, "status": one.status, "note": one.note} for one in chosen]
    card = {
        "title": f"questions about {printable(place.name)}",
        "documents": told,
        "generator": generator,
        "questions": counts,
    }
    card |= {"rejected": str(out / REJECTED_FILE)} if made else {}
    return rows, source, card


@dataclass(frozen=True)
class _Asking:
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


def _made(asking: _Asking, watch: Watch, processes: int, job: str = "base") -> tuple[list[Example], dict[str, int]]:
    """Questions made of the documents; those of an earlier call, where it got so far."""
    from selftaught.models.resolve import weight_bytes

    path, counts = asking.out / QUESTIONS_FILE, asking.out / "questions.json"
    if not counts.is_file():
        pieces = sum(record.num_pieces for record in asking.records)
        local = asking.generator in ("self", "none")  # another model may not fit several times
        batches = -(-pieces // PIECES_AT_ONCE)
        helped = working_group(processes, batches, weight_bytes(asking.model), _ask, asking) if local else None
        with helped or nullcontext(ALONE) as group:
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


def _ask(asking: _Asking, group: ProcessGroup, watch: Callable[[Making], None] = lambda making: None) -> str:
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


def _with_pieces(own: Sequence[Example], records: Sequence[DocumentRecord], store: Path) -> list[Example]:
    """The user's rows, each with the piece that fits it best where it brings no document."""
    from selftaught.questions import Retriever

    if all(row.context for row in own):
        return list(own)
    retriever = Retriever(pieces_of(store, records))
    rows = []
    for row in own:
        best = [] if row.context or row.group == "neighbour" else retriever.best(row.question)
        rows.append(replace(row, context=best[0].text, source=row.source or best[0].document) if best else row)
    return rows
