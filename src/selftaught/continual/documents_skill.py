"""A skill made of documents, for a workspace: only what is new or has changed is asked about."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from selftaught.config import LearnConfig
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
from selftaught.continual.learn import STORE
from selftaught.continual.workspace import Workspace
from selftaught.data.documents import DocumentRecord, read_documents
from selftaught.data.documents.walk import printable
from selftaught.errors import ConfigError
from selftaught.questions.making import REJECTED_FILE
from selftaught.questions.writers import check_generator
from selftaught.reports.reading import contexts_line
from selftaught.types import Example


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
    config, place = general_where_nobody_asks(config, generator), Path(documents).absolute()
    source = printable(str(place))
    own = own_questions(questions)
    check_generator(generator)
    folder = workspace.runs.parent / STORE / hashlib.sha256(source.encode()).hexdigest()[:16]
    records = read_documents(place, folder / STORE, watch=shown(watch, "head"))
    watch(Event("head", "documents", {"records": [asdict(record) for record in records]}))
    new = _new(workspace, source, records, needed=not teaches(own))
    made: list[Example] = []
    counts: dict[str, int] = {}
    model = str(workspace.model_folder(workspace.ledger.head()))
    key = [sorted(record.digest for record in new), generator, model, config.seed, config.questions.model_dump()]
    out = folder / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]  # the same again after a kill
    if not teaches(own):
        asking = Asking(folder / STORE, tuple(new), model, generator, config, out)
        made, counts = made_questions(asking, watch, processes, "head")
    card = {
        "title": f"questions about {printable(place.name)}",
        "documents": [{name: asdict(one)[name] for name in ("path", "digest", "status", "note")} for one in new],
        "generator": generator,
        "questions": counts,
    }
    card |= {"rejected": str(out / REJECTED_FILE)} if made else {}
    own, parts = with_pieces(own, records, folder / STORE, config.questions.pieces)
    rows = together(made, own)
    rows, cut = fitted(rows, parts, room_of(model, rows, config))
    watch(Event("head", "contexts", {"rows": cut}))
    return rows, source, card | ({"contexts": contexts_line(cut)} if cut else {})


def _new(workspace: Workspace, source: str, records: Sequence[DocumentRecord], needed: bool) -> list[DocumentRecord]:
    """The documents of which no skill was made before.

    Raises:
        ConfigError: one is needed, and nothing has changed since a skill was made of the same folder.
    """
    earlier = [skill for skill in workspace.ledger.skills() if skill.source == source and "documents" in skill.card]
    taught = {told["digest"] for skill in earlier for told in skill.card["documents"]}
    new = [record for record in records if record.digest not in taught]
    if needed and not any(record.num_pieces for record in new):
        names = " and ".join(skill.name for skill in earlier)
        raise ConfigError(f"{source}: nothing has changed since {names} was made of it; add or change a document")
    return new
