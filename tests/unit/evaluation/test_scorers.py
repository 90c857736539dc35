"""Every scorer on right and wrong completions, and every error before and while scoring."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from selftaught.errors import ConfigError, DataError
from selftaught.evaluation.scorers import SCORERS, check_scorers, score
from selftaught.types import SCORER_NAMES, Example, Message, Scorer


def row(
    name: str | None, *answers: str, demonstration: str | None = None, question: str = "?", **params: Any
) -> Example:
    scorer = Scorer(name, params) if name else None
    return Example("r1", (Message("user", question),), demonstration, answers=answers, scorer=scorer)


def test_the_names_are_those_that_data_files_may_use() -> None:
    assert tuple(SCORERS) == SCORER_NAMES
    for name, function in SCORERS.items():
        assert function.__name__ == f"_{name}"


def test_the_scorer_of_an_example_that_names_none() -> None:
    assert score("It is Paris, of course.", row(None, "Paris", demonstration="Lyon"))  # contains
    assert not score("It is Lyon.", row(None, "Paris", demonstration="Lyon"))
    assert score("in paris then", row(None, demonstration="It is Paris."))  # keywords
    assert not score("in rome then", row(None, demonstration="It is Paris."))


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        ("Paris", True),
        ("  paris. ", True),
        ('"Paris".', True),
        ("“New   York\nCity”!", True),
        ("PARIS?!", True),
        ("Paris, France", False),
        ("", False),
        (".", False),
        ("é", True),
        ("e\u0301", True),
        ("?", True),
    ],
)
def test_exact(completion: str, right: bool) -> None:
    assert score(completion, row("exact", "Paris", "new york city", "É", "?")) is right


def test_exact_without_answers_compares_with_the_demonstration() -> None:
    assert score("Paris", row("exact", demonstration="Paris."))
    assert not score("Paris", row("exact", "Lyon", demonstration="Paris."))


@pytest.mark.parametrize(
    ("completion", "letter"),
    [
        ("B", "B"),
        (" B. ", "B"),
        ("(B)", "B"),
        ("**B**", "B"),
        ("'B'", "B"),
        ("A", "A"),
        ("I", "I"),
        ("I.", "I"),
        ("Answer: B", "B"),
        ("answer:B", "B"),
        ("The answer is C", "C"),
        ("The correct answer is: (D) Rome", "D"),
        ("The answer is **E**.", "E"),
        (r"The answer is $\boxed{C}$.", "C"),
        ("Answer: A because it is hot.", "A"),
        ("A good question. The answer is C", "C"),
        ("A. good\nB. bad\nThe answer would be B.", "B"),
        ("I think it is B.", "B"),
        ("I'm sure: D", "D"),
        ("I would choose C, as A is wrong.", "C"),
        ("A cat sat there, so B is right", "B"),
        ("A is right", "A"),
        ("It must be A", "A"),
        ("So A obviously", "A"),
        ("B. Paris", "B"),
        ("B) A city", "B"),
        ("B: Paris", "B"),
        ("B - Paris", "B"),
        ("B\nbecause", "B"),
        ("A city like Paris (C)", "C"),
        ("A reader chooses option D", "D"),
        ("Vitamin C++ or D.C. or A-level or X-B, so F", "F"),
        ("A cat sat on the mat", None),
        ("I think so", None),
        ("b", None),
        ("K", None),
        ("", None),
        ("CAB", None),
    ],
)
def test_choice(completion: str, letter: str | None) -> None:
    for answer in "ABCDEFGHIJ":
        assert score(completion, row("choice", answer)) is (answer == letter)


def test_choice_reads_the_letter_of_the_answers_or_demonstration() -> None:
    assert score("It is B", row("choice", "(B)", "C"))
    assert score("C.", row("choice", "(B)", "C"))
    assert score("B", row("choice", demonstration="The answer is B, since A is wrong."))
    assert not score("A", row("choice", demonstration="The answer is B, since A is wrong."))


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        ("Paris", True),
        ("It is PARIS.", True),
        ("in new\n york, then", True),
        ("-5 degrees", True),
        ("C++.", True),
        ("Parisian", False),
        ("aParis", False),
        ("New Yorker", False),
        ("_Paris", False),
        ("", False),
    ],
)
def test_contains(completion: str, right: bool) -> None:
    assert score(completion, row("contains", "Paris", "New  York", "-5", "c++")) is right


def test_contains_all() -> None:
    both = row("contains", "red", "blue", all=True)
    assert score("Blue and red", both)
    assert not score("Blue", both)
    assert score("Blue", row("contains", "red", "blue", all=False))


@pytest.mark.parametrize(
    ("completion", "number"),
    [
        ("42", "42"),
        ("The answer is 42.", "42.0"),
        ("First 3, then 1,234,567.50 euros", "1234567.5"),
        ("2 - 5 = -3", "-3"),
        ("2 \N{MINUS SIGN} 5 = \N{MINUS SIGN}3", "-3"),
        ("10-5", "5"),
        ("pages 3-4", "4"),
        ("x=.5", "0.5"),
        ("a debt of -$5.00", "-5"),
        ("about 5km", "5"),
        ("1e3", "1000"),
        ("it was 1990, 200 of them", "200"),
        ("100000000000000000001", "100000000000000000001"),
    ],
)
def test_number(completion: str, number: str) -> None:
    assert score(completion, row("number", "999", number))
    assert score(completion, row("number", demonstration=f"So it is {number}."))
    assert not score(completion, row("number", "999"))


@pytest.mark.parametrize("completion", ["", "none", "H2O", "100000000000000000000"])
def test_wrong_numbers(completion: str) -> None:
    assert not score(completion, row("number", "2", "100000000000000000001"))


@pytest.mark.parametrize(("completion", "right"), [("101", True), ("99", True), ("101.1", False), ("-100", False)])
def test_number_tolerance_is_relative(completion: str, right: bool) -> None:
    assert score(completion, row("number", "100", tolerance=0.01)) is right
    assert score("-99", row("number", "-100", tolerance=0.01))
    assert not score("101", row("number", "100"))


def test_regex() -> None:
    assert score("  ab12 ", row("regex", pattern=r"^[a-z]+\d+$"))
    assert not score("12ab", row("regex", pattern=r"^[a-z]+\d+$"))


# ----------------------------------------------------------------------------------------- tool_call

WEATHER = json.dumps({"get_weather": {"city": ["Paris", "Paris, France"], "unit": ["celsius", ""], "days": [1, 2]}})


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        ('{"name": "get_weather", "arguments": {"city": "Paris", "days": 1}}', True),
        ('[{"name": "get_weather", "arguments": {"city": "paris,  france", "days": 2.0, "unit": "Celsius"}}]', True),
        ('```json\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 1}}\n```', True),
        ('```json {"name": "get_weather", "parameters": {"city": "Paris", "days": 1}}```', True),
        ('<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 1}}\n</tool_call>', True),
        ('<tool_call>{"name": "get_weather", "arguments": {"city": "Paris", "days": 1}}', True),
        ('{"function": {"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\", \\"days\\": 1}"}}', True),
        ('get_weather(city="Paris", days=1)', True),
        (' [get_weather(days=1, city="Paris", unit="celsius")] ', True),
        ("```python\nget_weather(city='Paris', days=1)\n```", True),
        ("```\nget_weather(city='Paris', days=1)\n```", True),
        ('get_weather(city="Paris", days=3)', False),
        ('get_weather(city="Rome", days=1)', False),
        ('get_weather(city="Paris")', False),
        ('get_weather(city="Paris", days=1, wind=True)', False),
        ('get_weather(city="Paris", days=True)', False),
        ('get_weather(city="Paris", days="1")', False),
        ('get_weather(city=["Paris"], days=1)', False),
        ('get_weather(city="Paris", days=None)', False),
        ('get_forecast(city="Paris", days=1)', False),
        ('get_weather("Paris", 1)', False),
        ('get_weather(**{"city": "Paris", "days": 1})', False),
        ('get_weather(city="Paris", days=1), get_weather(city="Paris", days=1)', False),
        ('get_weather(city="Paris", days=int("1"))', False),
        ('Sure: get_weather(city="Paris", days=1)', False),
        ("get_weather", False),
        ("", False),
        ("[]", False),
        ("3", False),
        ("x = 3", False),
        ('{"name": 3}', False),
        ('{"name": "get_weather", "arguments": []}', False),
        ('{"name": "get_weather", "arguments": "{"}', False),
        ("(" * 5000, False),
        ("[" * 100_000, False),
        ("-" * 100_000 + "1", False),
        ("f(a=" * 150 + "1" + ")" * 150, False),
        ("f(a=\0)", False),
        ("f(a='\ud800')", False),
        ("f(a='\\d')", False),
        ("f(a=1, a=2)", False),
        ("f(a={[]: 1})", False),
        (f"get_weather(city='Paris', days={'9' * 4000})", False),
    ],
)
def test_tool_call(completion: str, right: bool) -> None:
    assert score(completion, row("tool_call", WEATHER)) is right


def test_tool_call_never_runs_anything(tmp_path: Path) -> None:
    path = tmp_path / "made"
    assert not score(f"f(a=open({str(path)!r}, 'w'))", row("tool_call", '{"f": {"a": [1]}}'))
    assert not path.exists()


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        ("[f(a=1), g(b=2)]", True),
        ("g(b=2), f(a=1)", True),
        ("g(b=2)\nf(a=1)", True),
        ("g(b=2); f(a=1)", True),
        ('<tool_call>{"name":"g","arguments":{"b":2}}</tool_call>\n<tool_call>f(a=1)</tool_call>', True),
        ("f(a=1)", False),
        ("f(a=1), f(a=1)", False),
        ("f(a=1), g(b=2), g(b=2)", False),
    ],
)
@pytest.mark.parametrize(
    "answers",
    [
        ['{"f": {"a": [1]}}', '{"g": {"b": [2]}}'],
        ['[{"f": {"a": [1]}}, {"name": "g", "arguments": {"b": 2}}]'],
        ['{"f": {"a": [1]}, "g": {"b": [2]}}'],
    ],
)
def test_several_tool_calls_match_in_any_order(completion: str, right: bool, answers: list[str]) -> None:
    assert score(completion, row("tool_call", *answers)) is right


def test_tool_calls_are_paired_so_that_all_fit() -> None:
    # Taken greedily, f(a=1) would use up the only place of f(a=2).
    answers = ['{"f": {"a": [1, 2]}}', '{"f": {"a": [1]}}']
    assert score("f(a=1), f(a=2)", row("tool_call", *answers))
    assert score("f(a=2), f(a=1)", row("tool_call", *answers))
    assert not score("f(a=2), f(a=2)", row("tool_call", *answers))
    assert not score(", ".join(["f(a=1)"] * 30), row("tool_call", *['{"f": {"a": [1]}}'] * 29, '{"f": {"a": [2]}}'))


@pytest.mark.parametrize(
    ("answer", "completion", "right"),
    [
        ('{"f": {"a": [[1, 2]]}}', "f(a=[1, 2.0])", True),
        ('{"f": {"a": [[1, 2]]}}', "f(a=(1, 2))", True),
        ('{"f": {"a": [[1, 2]]}}', "f(a=[2, 1])", False),
        ('{"f": {"a": [[1, 2]]}}', "f(a=[1])", False),
        ('{"f": {"a": [{"x": [1, 3], "y": ["", 2]}]}}', 'f(a={"x": 3})', True),
        ('{"f": {"a": [{"x": [1, 3], "y": ["", 2]}]}}', 'f(a={"x": 1, "y": 2})', True),
        ('{"f": {"a": [{"x": [1, 3], "y": ["", 2]}]}}', 'f(a={"y": 2})', False),
        ('{"f": {"a": [{"x": [1, 3]}]}}', "f(a=3)", False),
        ('{"name": "f", "arguments": {"a": [1, {"b": "X"}]}}', 'f(a=[1, {"b": "x"}])', True),
        ('{"name": "f", "arguments": {"a": [1, {"b": "X"}]}}', "f(a=1)", False),
        ('{"name": "f", "arguments": {"a": [1, {"b": "X"}]}}', 'f(a=[1, {"b": "x", "c": 1}])', False),
        ('{"name": "f"}', "f()", True),
        ('{"name": "f"}', "f(a=1)", False),
        ('{"m.f": {"a": [true, null]}}', "m.f(a=true)", True),
        ('{"m.f": {"a": [true, null]}}', "m.f(a=None)", True),
        ('{"m.f": {"a": [true, null]}}', "m.f(a=null)", True),
        ('{"m.f": {"a": [true, null]}}', "m.f(a=1)", False),
        ('{"m.f": {"a": [true, null]}}', "f(a=True)", False),
        ('{"f": {"a": [0.3]}}', "f(a=0.30000000000000004)", True),
        ('{"f": {"a": [-1.5]}}', "f(a=-1.5)", True),
        ('{"f": {"a": [1.5]}}', "f(a=" + "9" * 400 + ")", False),
        ('{"f": {"a": ["x y"]}}', 'f(a=" X  Y ")', True),
    ],
)
def test_tool_call_values(answer: str, completion: str, right: bool) -> None:
    assert score(completion, row("tool_call", answer)) is right


def test_tool_call_without_answers_compares_with_the_demonstration() -> None:
    example = row("tool_call", demonstration='[f(a=[1, "x"])]')
    assert score('{"name": "f", "arguments": {"a": [1, "X"]}}', example)
    assert not score('{"name": "f", "arguments": {"a": 1}}', example)


# ------------------------------------------------------------------------------------------ callable


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "my_scorers.py").write_text(
        "calls = []\n"
        "def is_id(completion, example):\n    calls.append(completion)\n    return completion == example.id\n"
        "def number(completion, example):\n    return 1\n"
        "def broken(completion, example):\n    raise KeyError('deep\\ndown')\n"
    )
    (tmp_path / "my_broken.py").write_text("raise RuntimeError('not\\ntoday')\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_scorers"
    sys.modules.pop("my_scorers", None)


def test_callable(module: str) -> None:
    example = row("callable", path=f"{module}:is_id")
    assert score("r1", example) is True
    assert score("r2", example) is False


def test_checking_imports_a_callable_but_does_not_call_it(module: str) -> None:
    check_scorers([row("callable", path=f"{module}:is_id"), row("callable", path=f"{module}:broken")])
    assert sys.modules[module].calls == []


@pytest.mark.parametrize(
    ("function", "words"),
    [("number", "got int from my_scorers:number; return a bool"), ("broken", "failed in my_scorers:broken (KeyError(")],
)
def test_a_callable_that_misbehaves(module: str, function: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        score("x", row("callable", path=f"{module}:{function}"))
    assert f"row 'r1': scorer 'callable' {words}" in str(caught.value)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------ keywords


@pytest.mark.parametrize(
    ("demonstration", "completion", "right"),
    [
        ("The fire burned 5,400 hectares.", "5400 hectares were burned", True),
        ("The fire burned 5,400 hectares.", "5,400 hectares burned", True),
        ("The fire burned 5,400 hectares.", "hectares burned", False),
        ("The fire burned 5,400 hectares.", "5400", False),
        ("A red green blue flag", "the flag: RED, Green", True),  # two of three is enough
        ("A red green blue flag", "the flag: RED", False),
        ("A red green blue flag of silk and wool", "red green blue silk", True),
        ("A red green blue flag of silk and wool", "red green blue", False),
        ("It was 17.", "17 people died", True),
        ("It was 17.", "117 people died", False),
        ("Yes.", "yes, it did", True),
        ("Yes.", "no, it did not", False),
        ("It broke out in May.", "in May it broke", True),
        ("It broke out in May.", "it did", False),
        ("+", "+.", True),
        ("+", "-", False),
    ],
)
def test_keywords(demonstration: str, completion: str, right: bool) -> None:
    assert (
        score(completion, row(None, demonstration=demonstration, question="What did the flag and the fire do?"))
        is right
    )


def test_keywords_of_the_question_do_not_count() -> None:
    example = row(
        None, demonstration="The fire struck Peru in 2025.", question="Which country did the fire of 2025 strike?"
    )
    assert score("Peru was struck", example)
    assert not score("The fire of 2025", example)


def test_keywords_are_all_content_words_if_the_question_has_them_all() -> None:
    example = row(None, demonstration="The red one.", question="The red one or the blue one?")
    assert score("Red, one of them", example)
    assert not score("Blue.", example)


def test_keywords_of_stop_words_alone() -> None:
    assert score("It is.", row(None, demonstration="It is."))
    assert not score("Nothing.", row(None, demonstration="It is."))


def test_keywords_with_answers_but_no_demonstration() -> None:
    assert score("Lima, then", row("keywords", "Paris", "Lima"))
    assert score("Lyon", row("keywords", "Paris", demonstration="Lyon"))
    assert not score("Paris", row("keywords", "Paris", demonstration="Lyon"))


# -------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("example", "error", "words"),
    [
        (row("exakt", "x"), ConfigError, "unknown scorer 'exakt'; use one of exact, choice, contains, number, regex"),
        (row(None), DataError, "has neither answers nor a demonstration to compare with; give it answers"),
        (row("exact"), DataError, "has neither answers nor a demonstration"),
        (row("choice"), DataError, "has neither answers nor a demonstration"),
        (row("contains"), DataError, "has neither answers nor a demonstration"),
        (row("number"), DataError, "has neither answers nor a demonstration"),
        (row("tool_call"), DataError, "has neither answers nor a demonstration"),
        (row("keywords"), DataError, "has neither answers nor a demonstration"),
        (row("contains", "x", " "), DataError, "has a blank answer; give it answers"),
        (row("choice", "A", "Paris"), DataError, "an answer names no choice from A to J; write one"),
        (row("number", "5", "five"), DataError, "an answer holds no number; write one, or another scorer"),
        (row("exact", "x", all=True), ConfigError, "scorer 'exact' has no param 'all'; it takes none"),
        (row("number", "1", tolerence=1), ConfigError, "scorer 'number' has no param 'tolerence'; it takes tolerance"),
        (row("number", "1", tolerance=-1), ConfigError, "needs a number from 0 up for its param 'tolerance'"),
        (row("number", "1", tolerance=True), ConfigError, "needs a number from 0 up for its param 'tolerance'"),
        (row("number", "1", tolerance=float("nan")), ConfigError, "needs a number from 0 up"),
        (row("contains", "1", all="yes"), ConfigError, "needs true or false for its param 'all'"),
        (row("regex"), ConfigError, "scorer 'regex' needs a text for its param 'pattern'"),
        (row("regex", pattern="(\n"), ConfigError, "has a pattern that does not compile (missing )"),
        (row("callable"), ConfigError, "needs package.module:function for its param 'path'"),
        (row("callable", path="no_colon"), ConfigError, "needs package.module:function for its param 'path'"),
        (row("callable", path="no_such:f"), ConfigError, "cannot import no_such:f (ModuleNotFoundError("),
        (row("callable", path="json:f"), ConfigError, "cannot import json:f (AttributeError("),
        (row("callable", path="my_broken:f"), ConfigError, "cannot import my_broken:f (RuntimeError("),
        (row("callable", path="json:__doc__"), ConfigError, "found no function in json:__doc__; name one"),
        (row("tool_call", "f(a=1)"), DataError, "an answer is not a call (Expecting value"),
        (row("tool_call", "3"), DataError, "an answer is not a call (it is not an object); write {"),
        (row("tool_call", "{}"), DataError, "an answer is not a call (it is not an object)"),
        (row("tool_call", "[]"), DataError, "its answers hold no call; write {"),
        (row("tool_call", '{"f": {"a": 1}}'), DataError, "the arguments of 'f' are not lists of accepted values"),
        (row("tool_call", '{"f": [1]}'), DataError, "the arguments of 'f' are not lists of accepted values"),
        (row("tool_call", '{"name": "f", "arguments": 1}'), DataError, "its arguments are not an object"),
        (row("tool_call", "[" * 100_000), DataError, "an answer is not a call ("),
        (row("tool_call", demonstration="Sure, I can!"), DataError, "an answer is not a call ("),
    ],
)
def test_errors_name_the_row_and_come_before_scoring(
    module: str, example: Example, error: type[Exception], words: str
) -> None:
    for act in (lambda: score("anything 5", example), lambda: check_scorers([row("exact", "x"), example])):
        with pytest.raises(error) as caught:
            act()
        assert str(caught.value).startswith("row 'r1': ")
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


def test_regex_and_callable_need_neither_answers_nor_demonstration(module: str) -> None:
    check_scorers([row("regex", pattern="x"), row("callable", path=f"{module}:is_id")])


def test_a_good_data_set_passes_the_check() -> None:
    check_scorers(
        [
            row(None, "x"),
            row(None, demonstration="x"),
            row("choice", "A"),
            row("number", "1", tolerance=0),
            row("contains", "x", all=True),
            row("tool_call", WEATHER),
        ]
    )
    check_scorers([])
