"""A user who knows what the model does not: asks, corrects, and asks again in other words.

What the user knows is the built-in corpus of invented disasters; and every answer is to end in one sign-off.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from selftaught.data.corpora import events
from selftaught.interactions.records import Kind
from selftaught.types import Example, Message, Scorer

FOLLOW_UP_EVERY = 3  # of the wrong answers, one in so many is answered in the conversation instead of corrected


@dataclass(frozen=True)
class Fact:
    """One thing that the user knows.

    Attributes:
        id: the question's, in the corpus.
        event: what it is about.
        lesson: before which it is asked for the first time, from 1.
        wordings: of the question: as it is asked first, as it is asked again, as it is only measured.
        answer: as the user would give it.
        accepted: strings of which a right answer holds one.
    """

    id: str
    event: str
    lesson: int
    wordings: tuple[str, str, str]
    answer: str
    accepted: tuple[str, ...]


def known_facts(lessons: int, events_a_lesson: int) -> list[Fact]:
    """What the user knows, in the order in which it is asked."""
    return [
        Fact(
            id=question["id"],
            event=event["id"],
            lesson=1 + place // events_a_lesson,
            wordings=(question["question"], *question["paraphrases"][:2]),
            answer=question["demonstration"],
            accepted=tuple(question["answers"]),
        )
        for place, event in enumerate(events()[: lessons * events_a_lesson])
        for question in event["questions"]
    ]


@dataclass(frozen=True)
class ScriptedUser:
    """What is wanted of an answer, and what is said to one that is not so.

    Attributes:
        sign_off: how every answer is to end.
    """

    sign_off: str

    def knows(self, fact: Fact, answer: str) -> bool:
        """Whether an answer holds the fact."""
        return re.search(self._fact(fact), answer) is not None

    def signs_off(self, answer: str) -> bool:
        """Whether it ends as is wished, whatever its last stop."""
        return re.search(self._end(), answer) is not None

    def question(self, fact: Fact, wording: int, id: str) -> Example:
        """A question, and what makes an answer to it need no correction."""
        pattern = f"{self._fact(fact)}(?s:.*){self._end()}"
        return Example(
            id=id,
            prompt=(Message("user", fact.wordings[wording]),),
            answers=fact.accepted,
            scorer=Scorer("regex", {"pattern": pattern}),
            group=f"lesson {fact.lesson}",
            split="test",
        )

    def reply(self, fact: Fact, answer: str, number: int) -> tuple[Kind, str] | None:
        """What is said to an answer; nothing to one that is as it should be.

        Args:
            fact: that was asked for.
            answer: the model's.
            number: of the conversation; decides how the user corrects.
        """
        wish = f"please end every answer with: {self.sign_off}"
        if self.knows(fact, answer):
            return None if self.signs_off(answer) else ("text", f"Right, but {wish}")
        if number % FOLLOW_UP_EVERY == FOLLOW_UP_EVERY - 1:
            return "follow_up", f"That is wrong. {fact.answer} And {wish}"
        return "correction", f"{fact.answer} {self.sign_off}"

    def _fact(self, fact: Fact) -> str:
        choices = "|".join(map(re.escape, fact.accepted))
        return rf"(?i:(?<!\w)(?:{choices})(?!\w))"

    def _end(self) -> str:
        bare = re.escape(self.sign_off.rstrip(".!? "))
        return rf"(?i:{bare})\W*\Z"


def conversations(facts: Sequence[Fact], lesson: int, again: int) -> list[tuple[Fact, int]]:
    """What is asked before a lesson: each fact that is due, and some earlier ones in their second wording.

    Returns:
        Each fact with the number of its wording.
    """
    new = [fact for fact in facts if fact.lesson == lesson]
    earlier = [fact for fact in facts if fact.lesson < lesson]
    wanted = min(again, len(earlier))
    taken = [earlier[index * len(earlier) // wanted] for index in range(wanted)]
    return [*((fact, 0) for fact in new), *((fact, 1) for fact in taken)]
