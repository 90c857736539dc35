"""The ledger's nouns. None of them ever changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Skill:
    """Named data, fixed when it was registered.

    Attributes:
        name: its name.
        created: when (UTC, ISO 8601).
        source: where the data came from.
        data_hash: of all its rows, splits included (see `data.data_hash`).
        rows_artifact: digest of the rows, as JSON lines.
        max_new_tokens: longest answer when it is asked.
        card: what is known of it: counts, licence, accuracies at registration.
    """

    name: str
    created: str
    source: str
    data_hash: str
    rows_artifact: str
    max_new_tokens: int
    card: dict[str, Any]


@dataclass(frozen=True)
class Version:
    """A model that was measured. Nothing of it ever changes.

    Attributes:
        number: 0 is the base.
        parent: number of the version it was taught from; None for the base.
        skill: what was taught; None for the base.
        created: when (UTC, ISO 8601).
        method: "sdft", …; None for the base.
        config: of the training, resolved; None for the base.
        seed: of the training.
        data_hash: of what was taught.
        code_version: of selftaught.
        model_artifact: digest of the weights, a transformers directory.
        adapter_artifact: digest of the peft adapter that was trained, if one was.
        drift_nats: from the base, if it was measured.
        training: seconds, steps, tokens, the curve …
    """

    number: int
    parent: int | None
    skill: str | None
    created: str
    method: str | None
    config: dict[str, Any] | None
    seed: int | None
    data_hash: str | None
    code_version: str
    model_artifact: str
    adapter_artifact: str | None
    drift_nats: float | None
    training: dict[str, Any]

    @property
    def name(self) -> str:
        """ "v3"."""
        return f"v{self.number}"


@dataclass(frozen=True)
class Evaluation:
    """One version's answers to one suite.

    Attributes:
        suite: a skill's or a probe family's name.
        kind: "skill" or "probe".
        items_hash: of the items asked; only results with the same hash can be compared.
        correct: right answers.
        total: answers.
        results_artifact: digest of the answers, one JSON object an item.
    """

    suite: str
    kind: str
    items_hash: str
    correct: int
    total: int
    results_artifact: str


@dataclass(frozen=True)
class Event:
    """Something that happened to a version.

    Attributes:
        number: in the order of time.
        created: when (UTC, ISO 8601).
        kind: "base", "promoted", "rejected", "inconclusive", "rolled back", "restored" or "collected" (its weights
            were removed).
        version: its number.
        head: the version that HEAD names from then on; None if the event moves nothing.
        reason: in words.
    """

    number: int
    created: str
    kind: str
    version: int
    head: int | None
    reason: str
