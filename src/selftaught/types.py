"""The nouns that every floor shares. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
Split = Literal["train", "validation", "test"]

# `data` checks the names that rows give, `evaluation.scorers` holds the functions, and neither imports the other.
SCORER_NAMES = ("exact", "choice", "contains", "number", "regex", "tool_call", "callable", "keywords")


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Scorer:
    """How a completion is judged: a scorer's name (see `evaluation.scorers`) and its parameters."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Example:
    """One thing to teach, or to ask.

    Attributes:
        id: unique within its data set; names the row in every message and report.
        prompt: the conversation so far; its last turn is the user's.
        demonstration: a good answer. Required to teach (`split == "train"`).
        context: a document that helps to answer, shown to the teacher only.
        answers: strings that the scorer accepts. Empty: the demonstration is what it compares with.
        scorer: how a completion is judged; None leaves the choice to the evaluator.
        group: the name under which its accuracy is reported ("direct", "indirect", …).
        split: "train" rows are taught and evaluated; "validation" and "test" rows only evaluated, the former along
            a run.
        source: the document that it is about, as a path; for the record only.
        said: what the model answered before, in use, and
        feedback: what the user said to that: both shown to the teacher only, instead of the demonstration.
    """

    id: str
    prompt: tuple[Message, ...]
    demonstration: str | None = None
    context: str | None = None
    answers: tuple[str, ...] = ()
    scorer: Scorer | None = None
    group: str = "direct"
    split: Split = "train"
    source: str | None = None
    said: str | None = None
    feedback: str | None = None

    @property
    def question(self) -> str:
        """The text of the last user turn."""
        return self.prompt[-1].content


@dataclass(frozen=True)
class ItemResult:
    """What one model answered to one example, and whether that was right."""

    id: str
    group: str
    completion: str
    correct: bool
