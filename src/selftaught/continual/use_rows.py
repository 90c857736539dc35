"""Feedback becomes rows to teach, or is left out for a reason.

A correction is a demonstration. Free text, or the user's next message, is the teacher's context: it is shown the
prompt, the answer and what was said to it. Either is only ever shown with the prompt that it was given for, so whatever
a text says is taught as an answer to that prompt and to no other. Thumbs teach nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from selftaught.continual.jobs import Job, Suite
from selftaught.continual.workspace_config import InteractionsConfig
from selftaught.data.rows import from_json_lines, to_json_lines
from selftaught.errors import SelftaughtError
from selftaught.interactions import Feedback, Interaction
from selftaught.interactions.records import THUMBS
from selftaught.types import Example, Message
from selftaught.words import added, content_words, words

Pairs = Sequence[tuple[Feedback, Interaction]]
Prompt = tuple[Message, ...]

AGAIN = "Once more, please: {question}"  # how a test row words what was asked: not as it is taught
SUPERSEDED = "something else was said later, or approved"
CONFLICT = "another key says something else of the same prompt; approve or reject one of them"
TOO_MANY = "its key has its share of this lesson; it waits for the next"
KNOWN = "the model already answers so"
NO_LIFT = "shown to the model, it does not change the answer"
ASTRAY = "shown to the model, its answer takes up no word of it; approve it if it is a wish that names none"
NOT_FOLLOWED = "shown the correction, the model does not say it"
WAITING = (CONFLICT, TOO_MANY)  # all other reasons are final


@dataclass(frozen=True)
class Candidate:
    """What may be taught.

    Attributes:
        row: of split "train".
        key: whose it is.
        feedback: ids of all feedback that says the same.
        approved: whether a person has approved it.
    """

    row: Example
    key: str
    feedback: tuple[int, ...]
    approved: bool

    @property
    def says(self) -> tuple[bool, str]:
        """What is to be learned, however it is spaced."""
        text = self.row.feedback or self.row.demonstration or ""
        return self.row.feedback is None, " ".join(text.split())


@dataclass
class Sorted:
    """What became of feedback.

    Attributes:
        chosen: is to be taught.
        left_out: of each feedback's id, why it is not.
    """

    chosen: list[Candidate] = field(default_factory=list)
    left_out: dict[int, str] = field(default_factory=dict)

    def leave_out(self, candidates: Iterable[Candidate], why: str) -> None:
        """Notes why candidates are not taught."""
        self.left_out |= {id: why for candidate in candidates for id in candidate.feedback}

    def reasons(self) -> dict[str, int]:
        """How often each reason left something out, the commonest first."""
        return dict(Counter(self.left_out.values()).most_common())


def sort_feedback(feedback: Pairs, settings: InteractionsConfig, asked: Mapping[Prompt, str] | None = None) -> Sorted:
    """Chooses what can be taught, without asking a model.

    Args:
        feedback: with what it is about, the oldest first; of any state.
        settings: who approves, and the largest share of one key.
        asked: prompts that a skill or a probe asks, and its name: they are never taught.
    """
    found = Sorted()
    by_prompt: dict[Prompt, list[Candidate]] = defaultdict(list)
    wanted = ("approved", "pending") if settings.approve == "auto" else ("approved",)
    for said, about in feedback:
        if said.state not in wanted or said.kind in THUMBS:
            continue
        candidate = _candidate(said, about)
        try:
            from_json_lines(to_json_lines([candidate.row]))
        except (SelftaughtError, ValueError) as error:
            found.leave_out([candidate], f"is no row that could be taught: {error}")
            continue
        if (name := (asked or {}).get(about.messages)) is not None:
            found.leave_out([candidate], f"{name} asks the same, to see what is kept")
            continue
        by_prompt[about.messages].append(candidate)
    settled = [one for candidates in by_prompt.values() if (one := _settled(candidates, found)) is not None]
    found.chosen = _within_share(sorted(settled, key=lambda one: one.feedback[0]), settings, found)
    return found


def _candidate(said: Feedback, about: Interaction) -> Candidate:
    row = Example(id=f"use-{said.id}", prompt=about.messages)
    if said.kind == "correction":
        row = replace(row, demonstration=said.text)
    else:  # what is to be said is not known yet: `judged` puts it in
        row = replace(row, demonstration=said.text, said=about.completion.strip() or None, feedback=said.text)
    return Candidate(row, said.key, (said.id,), said.state == "approved")


def _settled(candidates: Sequence[Candidate], found: Sorted) -> Candidate | None:
    """The one thing that is said of a prompt, if it is one thing.

    What a person approved goes before what nobody looked at; of one key the last word counts, a correction before a
    text; keys that then still differ are all held back.
    """
    looked_at = [one for one in candidates if one.approved] or list(candidates)
    last: dict[str, Candidate] = {}
    for one in looked_at:
        before = last.get(one.key)
        if before is None or one.says == before.says or one.says[0] >= before.says[0]:
            last[one.key] = one
    says = {one.says for one in last.values()}
    same = [one for one in candidates if one.says in says]
    found.leave_out([one for one in candidates if one not in same], SUPERSEDED)
    if len(says) > 1:
        found.leave_out(same, CONFLICT)
        return None
    ids = tuple(id for one in same for id in one.feedback)
    return replace(next(iter(last.values())), feedback=ids)


def _within_share(candidates: Sequence[Candidate], settings: InteractionsConfig, found: Sorted) -> list[Candidate]:
    """At most so many of each key, the oldest first, that none has more than its share of what is left.

    As many as a lesson needs are always let through: else a busy key would have to wait for quiet ones.
    """
    totals = Counter(one.key for one in candidates)
    if len(totals) < 2:
        return list(candidates)
    most = max(totals.values())
    while most > settings.least_rows and most > settings.key_share * sum(min(total, most) for total in totals.values()):
        most -= 1
    chosen, taken = [], Counter[str]()
    for one in candidates:
        taken[one.key] += 1
        if taken[one.key] <= most:
            chosen.append(one)
        else:
            found.leave_out([one], TOO_MANY)
    return chosen


# ------------------------------------------------------------------------------------------ the lift


def lift_job(candidates: Sequence[Candidate], model: str, config: Any, limit: int) -> Job:
    """Asks a model every candidate's prompt as it is and as the teacher sees it; `judged` reads the answers.

    Args:
        candidates: what may be taught.
        model: HEAD's directory.
        config: whose templates are used.
        limit: longest answer in tokens.
    """
    from selftaught.prompts import teacher_messages

    plain = tuple(replace(one.row, split="test", said=None, feedback=None) for one in candidates)
    shown = tuple(
        replace(asked, prompt=teacher_messages(one.row, config.prompts))
        for one, asked in zip(candidates, plain, strict=True)
    )
    suites = (Suite("plain", "skill", plain, limit), Suite("shown", "skill", shown, limit))
    return Job("head", "HEAD", model, None, suites=suites, dtype=config.dtype)


def judged(candidates: Sequence[Candidate], suites: Mapping[str, Any], found: Sorted) -> list[Candidate]:
    """The candidates of which the model can learn something; of the others `found` is told why.

    A row from a text gets what the model says once it is shown the text: that is what there is to learn.

    Args:
        candidates: those of `lift_job`.
        suites: "suites" of the job's record.
        found: takes the reasons.
    """
    chosen = []
    plain, shown = (suites[name]["results"] for name in ("plain", "shown"))
    for one, before, after in zip(candidates, plain, shown, strict=True):
        if (why := _no_lift(one, before, after)) is not None:
            found.leave_out([one], why)
        elif one.row.feedback is None:
            chosen.append(one)
        else:
            chosen.append(replace(one, row=replace(one.row, demonstration=after["completion"].strip())))
    return chosen


def _no_lift(one: Candidate, before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """Why what was said changes nothing for the better, if so."""
    plain, shown = before["completion"], after["completion"]
    if one.row.feedback is None:
        if words(plain) == words(one.row.demonstration or ""):
            return KNOWN
        return None if after["correct"] else NOT_FOLLOWED
    if words(plain) == words(shown) or not words(shown):
        return NO_LIFT
    # A next message may be thanks, or another question; and a small model that is told it was wrong often guesses anew.
    new = added(shown, f"{one.row.question} {plain} {one.row.said or ''}")
    return None if one.approved or new & content_words(one.row.feedback) else ASTRAY


def rows_to_ask(candidates: Sequence[Candidate]) -> list[Example]:
    """What the gate asks: each prompt in other words, and whether the answer is what was to be learned."""
    rows = []
    for one in candidates:
        row = one.row
        asked = Message("user", AGAIN.format(question=row.question))
        rows.append(
            replace(row, id=f"{row.id}-again", prompt=(*row.prompt[:-1], asked), split="test", group="asked again",
                    said=None, feedback=None)
        )  # fmt: skip
    return rows
