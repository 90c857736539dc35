"""The probe bank: enough items, well-formed, not to be had by repeating the question, and right."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from selftaught.evaluation.probes import FAMILIES, arithmetic, bank, probe_bank, probe_family
from selftaught.evaluation.probes.bank import read_bank
from selftaught.evaluation.scorers import check_scorers, score

WORDS = {arithmetic.in_words(number): number for number in range(1, 100)}


@pytest.mark.parametrize("name", FAMILIES)
def test_is_large_and_begins_with_the_standard_items(name):
    family, standard = probe_bank(name), probe_family(name)
    assert len(family.examples) >= 2000
    assert family.examples[: len(standard.examples)] == standard.examples
    assert len({example.id for example in family.examples}) == len(family.examples)
    assert len({example.question for example in family.examples}) == len(family.examples)
    assert {example.group for example in family.examples} == {name}
    check_scorers(family.examples)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_item_has_a_cluster_and_standard_items_their_own(name):
    family, standard = probe_bank(name), probe_family(name)
    assert set(family.clusters) == {example.id for example in family.examples}
    assert all(family.clusters[example.id] == example.id for example in standard.examples)
    assert standard.clusters == {example.id: example.id for example in standard.examples}
    sizes = Counter(family.clusters.values())
    assert max(sizes.values()) <= 3
    assert len(sizes) >= 0.5 * len(family.examples)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_reference_answer_is_right_and_repeating_the_question_is_not(name):
    for example in read_bank(name).examples:
        assert example.demonstration and score(example.demonstration, example), example.id
        assert not score(example.question, example), example.id
        assert not score(f'"{example.question}"', example), example.id
        for answer in example.answers:
            said = rf"(?<!\w){re.escape(answer.casefold())}(?!\w)"
            assert not re.search(said, example.question.casefold()), example.id


def test_is_the_same_every_time():
    first = {name: read_bank(name) for name in FAMILIES}
    assert first == {name: read_bank(name) for name in FAMILIES}
    assert probe_bank("facts") is probe_bank("facts")


def test_a_fact_is_asked_in_wordings_that_take_turns():
    topic = {"topic": "t", "asked": 2, "wordings": ["A {}?", "B {}?", "C {}?"], "items": ["x, y | z", "v | w / u"]}
    asked = [(cluster, example.question, example.answers) for cluster, example in bank._ask("f", topic)]
    assert asked == [
        ("f-t-001", "A x?", ("z",)),
        ("f-t-001", "B x?", ("z",)),
        ("f-t-002", "B y?", ("z",)),
        ("f-t-002", "C y?", ("z",)),
        ("f-t-003", "C v?", ("w", "u")),
        ("f-t-003", "A v?", ("w", "u")),
    ]


def test_a_wording_gives_article_capital_and_apostrophe():
    fact = bank._Fact(("the Netherlands",))
    assert bank._worded(
        "{A}, {s} and {a} or {0}", fact
    ) == "The Netherlands, the Netherlands' and a the Netherlands or " + ("the Netherlands")
    assert bank._worded("{a} is", bank._Fact(("oak",))) == "An oak is"


def test_a_choice_is_right_if_it_is_named_first():
    topic = {"topic": "t", "asked": 1, "judge": "choice", "wordings": ["Odd one: {}?"], "items": ["cup | red, blue"]}
    ((_, example),) = bank._ask("f", topic)
    assert example.question == "Odd one: red, cup, blue?"
    assert score("The cup, as red and blue are colours.", example)
    assert not score("Red is not a cup.", example)


def test_a_pattern_is_not_met_by_what_begins_as_the_question_does():
    topic = {
        **{"topic": "t", "asked": 1, "judge": "pattern", "wordings": ['Use the word "{}".'], "items": ["sun"]},
        **{"pattern": r"(?is)\A.*\b<0>\b", "reference": "The <0> shines."},
    }
    ((_, example),) = bank._ask("f", topic)
    assert score("Here is the Sun.", example)
    assert not score('Use the word "sun" in this.', example)


SOLUTIONS = {  # what a question asks for, told from its text alone
    r"(\d+) \+ (\d+)": lambda a, b: a + b,
    r"(\d+) (?:-|minus) (\d+)": lambda a, b: a - b,
    r"(\d+) (?:times|x|multiplied by) (\d+)": lambda a, b: a * b,
    r"product of (\d+) and (\d+)": lambda a, b: a * b,
    r"next (?:whole )?number after (\d+)": lambda a: a + 1,
    r"next even number after (\d+)": lambda a: next(n for n in (a + 1, a + 2) if n % 2 == 0),
    r"next odd number after (\d+)": lambda a: next(n for n in (a + 1, a + 2) if n % 2 == 1),
    r"days are in (\d+) weeks": lambda a: sum([7] * a),
    r"(?:biggest|largest)[^:]*: (\d+), (\d+), (\d+)": max,
    r"(?:lowest|smallest)[^:]*: (\d+), (\d+), (\d+)": min,
}


def _solved(question: str) -> int:
    spelled = re.search(r"number ([a-z][a-z -]*?) in (?:numerals|digits)", question)
    if spelled:
        return WORDS[spelled[1]]
    (found,) = ((solve, match) for text, solve in SOLUTIONS.items() if (match := re.search(text, question)))
    return found[0](*map(int, found[1].groups()))


def test_arithmetic_answers_are_right():
    for example in read_bank("arithmetic").examples:
        assert example.demonstration == str(_solved(example.question)), example.question
    assert WORDS["forty-five"] == 45 and WORDS["nineteen"] == 19
