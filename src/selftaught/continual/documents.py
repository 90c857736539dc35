"""From documents to knowledge: read them, make questions, teach those, and measure.

documents → pieces → questions, each checked → a data set as any other → `learn`
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from selftaught.config import DISTILLING, FullWeights, LearnConfig, LoraWeights, Method
from selftaught.continual.asking import (
    Asking,
    general_where_nobody_asks,
    made_questions,
    own_questions,
    shown,
    teaches,
    together,
)
from selftaught.continual.contexts import fitted, room_of, with_pieces
from selftaught.continual.jobs import Event, Watch
from selftaught.continual.knowledge import known
from selftaught.continual.learn import STORE, run_folder, taught_and_reported
from selftaught.data import data_hash
from selftaught.data.documents import DocumentRecord, read_documents
from selftaught.data.documents.walk import printable
from selftaught.errors import ConfigError
from selftaught.evaluation.judge import JUDGED_FILE, Judge
from selftaught.files import read_json, write_json
from selftaught.questions.writers import check_generator
from selftaught.types import Example

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
    judge: str | None = None,
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
        judge: "http://…/v1#model", who judges the answers that rules cannot tell of, and the others to see if it agrees
            with them. A run that is done may be judged, or judged by another one, when it is gone on with.

    Returns:
        The report, as `learn` returns it, with "documents" (what became of each file), "contexts" (which rows'
        documents were too long, see `contexts.fitted`), "questions" (how many were kept and rejected, and why), and
        "knowledge" and "judge" (see `knowledge.known`).

    Raises:
        SelftaughtError: with one line that says what is wrong and how to mend it.
    """
    from selftaught.models.resolve import resolve_model

    config, model, out = general_where_nobody_asks(config or LearnConfig(), generator), str(model), Path(out)
    own = own_questions(questions)
    check_generator(generator)
    others = [_other(config, method) for method in beside]
    for one in others:
        one.resolve(1, 1)
    request = _request(documents, model, generator, own, beside, config)
    judging = None if judge is None else Judge(judge, out / JUDGED_FILE)
    if judging is not None:
        judging.check()
    with run_folder(out, request, resume):
        path = str(resolve_model(model))  # before anything is left in the folder
        records = _read(Path(documents), out, watch)
        asking = Asking(out / STORE, tuple(records), path, generator, config, out)
        taught = _taught(asking, own, "oracle" in (config.method, *beside), watch, processes)

        def more(done: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
            return {
                "documents": [asdict(record) for record in records],
                "contexts": taught.cut,
                "questions": taught.counts,
                **known(taught.whole, done, judging, _judging(watch, config.method)),
            }

        name = printable(Path(documents).name)
        return taught_and_reported(taught.rows, name, model, out, config, watch, processes, others, more)


def _request(
    documents: str | Path,
    model: str,
    generator: str,
    own: Sequence[Example],
    beside: Sequence[Method],
    config: LearnConfig,
) -> dict[str, Any]:
    """What determines the result; who judges it does not."""
    return {
        "documents": printable(str(Path(documents).absolute())),
        "model": model,
        "generator": generator,
        "questions": data_hash(own) if own else None,
        "beside": list(beside),
        "config": config.model_dump(mode="json"),
    }


@dataclass(frozen=True)
class _Taught:
    """What is taught and asked.

    Attributes:
        rows: as they are shown.
        whole: the same with their whole documents, as answers are graded by.
        cut: which documents are too long, see `contexts.fitted`.
        counts: of the questions that were made.
    """

    rows: list[Example]
    whole: list[Example]
    cut: list[dict[str, Any]]
    counts: dict[str, int]


def _taught(asking: Asking, own: Sequence[Example], oracle: bool, watch: Watch, processes: int) -> _Taught:
    """The rows: those that are made, and the user's own with their pieces."""
    made: list[Example] = []
    counts: dict[str, int] = {}
    if not teaches(own):
        made, counts = made_questions(asking, watch, processes)
    own, parts = with_pieces(own, asking.records, asking.store, asking.config.questions.pieces)
    whole = together(made, own)
    room = room_of(asking.model, whole, asking.config)
    rows, cut = fitted(whole, parts, room, lambda row: oracle or row.split == "train")
    watch(Event("base", "contexts", {"rows": cut}))
    return _Taught(rows, whole, cut, counts)


def _judging(watch: Watch, job: str) -> Callable[[int, int], None]:
    return lambda done, total: watch(Event(job, "judging" if done < total else "done", {"done": done, "total": total}))


def _other(config: LearnConfig, method: Method) -> LearnConfig:
    """Another method's defaults, for the same rows; every weight is trained where nothing is distilled."""
    weights = LoraWeights() if method in DISTILLING else FullWeights()
    kept = ("seed", "epochs", "steps", "prompts", "questions", "rollout", "dtype", "probes")
    return LearnConfig(method=method, weights=weights, **{name: getattr(config, name) for name in kept})


def _read(documents: Path, out: Path, watch: Watch) -> list[DocumentRecord]:
    """The documents' records, and the same ones when the run is gone on with.

    Raises:
        ConfigError: a document has changed since the run began.
    """
    records = read_documents(documents, out / STORE, leave_out=out, watch=shown(watch))
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
