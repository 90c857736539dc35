"""The parts of a run's configuration: objective, teacher, templates, weights, rollout, anchor, guard, documents.

`config` puts them together, and is where they are imported from.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator


class Config(BaseModel):
    """Base of all configuration: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# ---------------------------------------------------------------------------------------- objective


class FullSupport(Config):
    """Compare the two distributions over the whole vocabulary."""

    kind: Literal["full"] = "full"


class TeacherTopK(Config):
    """Compare them over the teacher's k likeliest tokens and one bucket holding all the others."""

    kind: Literal["teacher_topk"] = "teacher_topk"
    k: int = Field(100, ge=1, description="Number of the teacher's likeliest tokens that are compared one by one.")


Support = Annotated[FullSupport | TeacherTopK, Field(discriminator="kind")]


class LossConfig(Config):
    """The divergence between teacher and student at each completion token."""

    divergence: Literal["forward_kl", "reverse_kl", "jsd"] = Field(
        "forward_kl",
        description="forward_kl = KL(teacher‖student), reverse_kl = KL(student‖teacher), jsd = Jensen–Shannon.",
    )
    support: Support = Field(FullSupport(), description="Which tokens of the vocabulary are compared.")
    teacher_temperature: float = Field(
        0.5,
        gt=0,
        description="The teacher's logits are divided by this: below 1 its distribution is sharper, and the student is "
        "moved further towards what it finds likeliest.",
    )
    clip_nats: float | None = Field(
        None, gt=0, description="Upper bound on the loss of one token; above it the token gives no gradient."
    )
    skip_tokens: int = Field(0, ge=0, description="Number of first completion tokens left out of the loss.")
    chunk_tokens: int = Field(512, ge=1, description="Completion tokens projected onto the vocabulary at a time.")


# ------------------------------------------------------------------------------------------ teacher


class FrozenTeacher(Config):
    """The model as it was when the run began."""

    kind: Literal["frozen"] = "frozen"


class EmaTeacher(Config):
    """An exponential moving average of the student, held in float32."""

    kind: Literal["ema"] = "ema"
    rate: float = Field(0.02, gt=0, le=1, description="Weight of the student in each step's average.")


class LiveTeacher(Config):
    """The student itself, as it is now."""

    kind: Literal["live"] = "live"


Teacher = Annotated[FrozenTeacher | EmaTeacher | LiveTeacher, Field(discriminator="kind")]


# ---------------------------------------------------------------------------------------- templates


class PromptConfig(Config):
    """What the teacher is shown.

    Each template replaces the last user turn; `{question}` is that turn's text. Which one is used
    depends on the row: with a document, without one, or with a document alone. A line [assistant] or
    [user] in a template begins another turn.
    """

    knowledge: str = Field(
        "Read this report:\n{context}\n\n{question}\n\nThis is an example for a response to the question:\n"
        "{demonstration}\n\nNow answer with a response of your own.",
        description="Used when the row has a document: {context}, {demonstration}, {question}.",
    )
    skill: str = Field(
        2 * "{question}\n[assistant]\n{demonstration}\n[user]\n" + "{question}",  # no words that it would repeat
        description="Used when the row has no document: {demonstration}, {question}. Told the answer twice, a small "
        "model keeps to it: told once, it rewords half of the answers, and some wrongly.",
    )
    document: str = Field(
        "{context}\n\n{question}",
        description="Used when the row has a document but no demonstration: {context}, {question}.",
    )
    feedback: str = Field(
        "{question}\n[assistant]\n{said}\n[user]\n{feedback}\n\n{question}",
        description="Used when the row has a user's feedback: {said} is the answer that it is about, {feedback}, "
        "{question}.",
    )
    max_teacher_tokens: int = Field(
        4096,
        ge=16,
        description="A longer teacher prompt is an error that names its row; of documents (learn --documents) the "
        "pieces that fit best are shown instead, and which rows that concerns is said. Nothing else is ever cut.",
    )


# ---------------------------------------------------------------------------------------- the weights


class FullWeights(Config):
    """Every weight is trained; the masters and the optimiser's state are float32."""

    kind: Literal["full"] = "full"
    embeddings: bool = Field(
        True, description="Train the token embeddings and the head too; frozen, a small model needs far less memory."
    )


class LoraWeights(Config):
    """Low-rank adapters are trained (peft); the model that is left has them merged in."""

    kind: Literal["lora"] = "lora"
    rank: int = Field(32, ge=1, description="Rank of the adapters.")
    alpha: float | None = Field(
        None, gt=0, description="The adapters' product is multiplied by alpha / rank; left out, by 2."
    )
    targets: Literal["all-linear"] | tuple[str, ...] = Field(
        "all-linear", description="Names of the modules that get an adapter."
    )

    @property
    def scale(self) -> float:
        """What the adapters' product is multiplied by."""
        return 2.0 if self.alpha is None else self.alpha / self.rank


Weights = Annotated[FullWeights | LoraWeights, Field(discriminator="kind")]


# ---------------------------------------------------------------------------------------- the rollout


class RolloutConfig(Config):
    """How the completions that are learned from are drawn."""

    max_new_tokens: int | None = Field(
        None,
        ge=1,
        description="A completion ends here at the latest; left out, the longest demonstration and half as much.",
    )
    per_prompt: int = Field(
        1, ge=1, description="Completions of each prompt in a step; the prompt is run once for all of them."
    )
    prefix_tokens: int | None = Field(
        None,
        ge=1,
        description="Learn from so many first tokens of each completion, and draw no more (cheaper; what comes after "
        "them is not taught).",
    )
    speculative: bool = Field(
        False,
        description="Guess each completion (the student's last one of the row, or the demonstration), and run the "
        "guess at once; what is drawn stays the same, up to rounding.",
    )
    temperature: float = Field(0.3, ge=0, description="Sampling temperature; 0 is greedy.")
    top_p: float = Field(1.0, gt=0, le=1, description="Sample from the likeliest tokens that hold this much mass.")
    teacher_share: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of the first steps whose completions the teacher draws; the student draws the others'.",
    )
    teacher_draws: int = Field(
        1, ge=1, description="Completions that a frozen teacher draws of each row, kept and used in turn."
    )
    restart: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="A completion of the student's is cut before its first token to which the teacher gives less than "
        "this probability, and the teacher draws the rest.",
    )
    teacher_share_fall: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Part of that share that is gone by the end, falling linearly; at 1 the student is alone then.",
    )


class AnchorConfig(Config):
    """Holds the student to the model as it was, on prompts that it wrote itself and on those of earlier skills."""

    rows: int = Field(8, ge=0, description="Anchor rows beside each step's batch; 0 leaves them out.")
    rehearsal: int = Field(
        4, ge=0, description="Prompts of earlier skills beside them, where there are any; 0 rehearses none."
    )
    shown: int = Field(
        2,
        ge=0,
        description="Rows' prompts beside them in which another row's demonstration is shown: the student is held to "
        "what the model makes of it, so that it keeps following what it is shown; 0 leaves them out.",
    )
    weight: float = Field(1.0, gt=0, description="Weight of the anchor's divergence beside the loss.")
    pool: int = Field(
        160, ge=1, description="Anchor rows drawn at the start, and used in turn; no more than the run needs."
    )
    max_new_tokens: int = Field(24, ge=1, description="Longest prompt, and longest answer, of an anchor row.")


def _unset(value: Any) -> Any:
    """TOML has no word for nothing."""
    return None if value == "off" else value


Bound = Annotated[float | None, BeforeValidator(_unset)]


class GuardConfig(Config):
    """Ends a run that goes wrong, at its last checkpoint (train/guard.py); a bound that is "off" watches nothing."""

    window: int = Field(10, ge=1, description="Steps over which each sign is averaged.")
    repetition: Bound = Field(
        0.3, gt=0, description="Bound on the rise of the share of four-token runs that a completion has said before."
    )
    unended: Bound = Field(
        0.5, gt=0, description="Bound on the rise of the share of completions that do not end by themselves."
    )
    gap_nats: Bound = Field(1.0, gt=0, description="Bound on the rise of the gap to what is taught.")
    anchor_nats: Bound = Field(0.5, gt=0, description="Bound on the rise of the anchor's divergence.")


# ------------------------------------------------------------------------------------------ documents


QuestionKind = Literal["direct", "paraphrase", "comparison", "multi_hop", "indirect", "unstated"]


class QuestionConfig(Config):
    """How questions are made of documents (`learn --documents`)."""

    form: Literal["questions", "general"] = Field(
        "questions",
        description="questions = a model writes them; general = none are written: each piece is told of in answer to "
        "general requests.",
    )
    kinds: tuple[QuestionKind, ...] = Field(
        ("direct",),
        min_length=1,
        description="direct = what a small model can ask; the others are for a capable --generator: paraphrase (of the "
        "direct ones), comparison and multi_hop (over two documents), indirect, unstated (docs/documents.md).",
    )
    samples: int = Field(
        3,
        ge=1,
        description="Answers drawn with the document in view; a question is kept if most agree with the likeliest.",
    )
    temperature: float = Field(0.3, ge=0, description="Of the answers after the first, which is the likeliest.")
    wordings: int = Field(
        1, ge=1, description="Wordings of one fact that are taught; one more, if there is one, is only asked."
    )
    pieces: int = Field(
        1,
        ge=1,
        description="Best-fitting pieces that rows of the user's own are shown with, where they bring no context.",
    )
    neighbours: int = Field(
        40, ge=0, description="Questions about things that are called almost as the documents' are, and are not there."
    )

    @field_validator("kinds")
    @classmethod
    def _check_kinds(cls, kinds: tuple[QuestionKind, ...]) -> tuple[QuestionKind, ...]:
        if len(set(kinds)) < len(kinds):
            raise ValueError("names a kind twice")
        if "paraphrase" in kinds and "direct" not in kinds:
            raise ValueError("a paraphrase rewords a direct question; name direct as well")
        return kinds
