"""Makes the probe bank's items from `bank_<family>.json`: topics, each a few wordings and many facts.

A topic is `{"topic", "asked", "judge", "wordings", "items"}` and perhaps `"pattern"`, `"reference"`. Of its
wordings, each fact is asked in `asked`, taking turns, so that all are used alike. One fact is one **cluster**:
its wordings are right or wrong together more often than two facts are, and statistics must not take them for
independent. Wordings and topics were chosen by how many the base got right, single items never: those would have been
picked for the base's luck, and a later model would seem to have lost it. What an item says depends on its judge:

judge      item                       right when
=========  =========================  ===========================================================
contains   "France, Spain | Europe"   an answer occurs; facts share answers, " / " stands between answers
number     "3 : 4 | 7"                the answer's last number is right; " : " stands between fields
choice     "rose | hammer, saw, nail" the first of the options that it names is the one before the bar
pattern    "window : green"           it fits the topic's pattern, and does not begin as the prompt does

In a wording {0}, {1} … or {} are the fields; {A} the first with a capital, {a} with its article, {s} with
an apostrophe; for `choice`, {} holds all options, the right one never first. In a pattern, <0>, <1> … are
the fields and <answer> the answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from selftaught.evaluation.probes.arithmetic import made_facts
from selftaught.types import Example, Message, Scorer

LETTERS = "abcdefghijkl"
VOWEL = re.compile(r"(?i)(?!uni|eu|uk)[aeiou]")  # as it is heard: a university, a euro, a ukulele


@dataclass(frozen=True)
class Bank:
    """The items that a family has in the bank alone.

    Attributes:
        max_new_tokens: longest answer.
        examples: the items; each one's demonstration is a right answer.
        clusters: of every item's id, the fact that it is a wording of.
    """

    max_new_tokens: int
    examples: tuple[Example, ...]
    clusters: Mapping[str, str]


@dataclass(frozen=True)
class _Fact:
    fields: Sequence[str]
    answers: Sequence[str] = ()
    options: Sequence[str] = field(default=())


def read_bank(family: str) -> Bank:
    """Expands a family's file; the same items in the same order every time."""
    data = json.loads(files(__package__ or "").joinpath(f"bank_{family}.json").read_text(encoding="utf-8"))
    examples: list[Example] = []
    clusters: dict[str, str] = {}
    for topic in data["topics"]:
        for cluster, example in _ask(family, topic):
            examples.append(example)
            clusters[example.id] = cluster
    return Bank(data["max_new_tokens"], tuple(examples), clusters)


def _ask(family: str, topic: Mapping[str, Any]) -> Iterator[tuple[str, Example]]:
    """A topic's items, each with its cluster."""
    wordings = topic["wordings"]
    judge = JUDGES[topic.get("judge", "contains")]
    for number, fact in enumerate(_facts(topic)):
        cluster = f"{family}-{topic['topic']}-{number + 1:03}"
        for turn in range(number, number + topic["asked"]):
            index = turn % len(wordings)
            prompt = _worded(wordings[index], fact)
            scorer, reference = judge(topic, fact, prompt)
            yield (
                cluster,
                Example(
                    id=cluster + LETTERS[index],
                    prompt=(Message("user", prompt),),
                    demonstration=reference,
                    answers=tuple(fact.answers) if scorer.name != "regex" else (),
                    scorer=scorer,
                    group=family,
                    split="test",
                ),
            )


# ---------------------------------------------------------------------------------------------- facts


def _facts(topic: Mapping[str, Any]) -> Iterator[_Fact]:
    items = topic["items"] if "items" in topic else made_facts(topic)
    for number, item in enumerate(items):
        subjects, _, rest = (part.strip() for part in item.partition("|"))
        if topic.get("judge") == "choice":
            options = rest.split(", ")
            place = 1 + number % len(options)
            yield _Fact((subjects,), (subjects,), (*options[:place], subjects, *options[place:]))
        elif topic.get("judge") == "pattern":
            yield _Fact(subjects.split(" : "), rest.split(" / ") if rest else ())
        else:
            shared = topic.get("judge", "contains") == "contains"
            for subject in subjects.split(", ") if shared else [subjects]:
                yield _Fact(subject.split(" : "), rest.split(" / "))


def _worded(wording: str, fact: _Fact) -> str:
    first = fact.fields[0]
    texts = {
        "": ", ".join(fact.options) or first,
        "A": _capital(first),
        "a": f"{'an' if VOWEL.match(first) else 'a'} {first}",
        "s": first + ("'" if first.endswith("s") else "'s"),
        **{str(index): text for index, text in enumerate(fact.fields)},
    }
    return _capital(re.sub(r"\{([0-9Aas]?)\}", lambda match: texts[match[1]], wording))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


# ------------------------------------------------------------------------------------------- judgement


def _contains(topic: Mapping[str, Any], fact: _Fact, prompt: str) -> tuple[Scorer, str]:
    return Scorer("contains"), fact.answers[0]


def _number(topic: Mapping[str, Any], fact: _Fact, prompt: str) -> tuple[Scorer, str]:
    return Scorer("number"), fact.answers[0]


def _choice(topic: Mapping[str, Any], fact: _Fact, prompt: str) -> tuple[Scorer, str]:
    others = "|".join(re.escape(option) for option in fact.options if option != fact.fields[0])
    pattern = rf"(?is)\A(?:(?!\b(?:{others})\b).)*\b{re.escape(fact.fields[0])}\b"
    return Scorer("regex", {"pattern": pattern}), fact.fields[0]


def _pattern(topic: Mapping[str, Any], fact: _Fact, prompt: str) -> tuple[Scorer, str]:
    """The topic's pattern, for this fact; what begins with the prompt's own first words is an echo, and wrong."""
    flags, rest = re.fullmatch(r"(?s)(\(\?[is]+\))?(\\A.*)", topic["pattern"]).groups("")  # type: ignore[union-attr]
    echo = r"\W+".join(re.escape(word) for word in re.findall(r"\w+", prompt)[:4])
    answers = "|".join(re.escape(answer) for answer in fact.answers)
    pattern = rf"{flags}\A(?!\W*{echo}\b)" + _filled(rest, fact, re.escape).replace("<answer>", f"(?:{answers})")
    reference = _filled(topic["reference"], fact, str).replace("<answer>", next(iter(fact.answers), ""))
    return Scorer("regex", {"pattern": pattern}), reference


def _filled(template: str, fact: _Fact, made: Callable[[str], str]) -> str:
    return re.sub(r"<([0-9])>", lambda match: made(fact.fields[int(match[1])]), template)


JUDGES = {"contains": _contains, "number": _number, "choice": _choice, "pattern": _pattern}
