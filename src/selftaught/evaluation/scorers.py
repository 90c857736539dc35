"""Was a completion right? Eight ways to judge, one function each.

scorer     right when                                             params
=========  =====================================================  ===================
exact      the completion is an answer
choice     its letter, A to J, is an answer's
contains   an answer occurs in it as whole words                  all: every answer must
number     its last number is an answer's                         tolerance: relative
regex      the pattern is found in it                             pattern
tool_call  its calls are those that the answers ask for
callable   a function of your own says so                         path: "module:function"
keywords   it has the demonstration's content words
=========  =====================================================  ===================

Where an example names no scorer, it is `contains` if there are answers and `keywords` if there are
none. Where an example has no answers, its demonstration is the answer.
"""

from __future__ import annotations

import ast
import importlib
import json
import math
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from selftaught.errors import ConfigError, DataError
from selftaught.types import SCORER_NAMES, Example, Scorer
from selftaught.words import STOP_WORDS

Params = Mapping[str, Any]
SCORING = 1  # raised whenever a scorer judges otherwise: answers judged before are then asked again, not compared
QUOTES = "\"'`“”„‘’«»"


def score(completion: str, example: Example) -> bool:
    """Judges one completion by the example's scorer.

    Args:
        completion: what the model answered.
        example: what it was asked, with the answers or the demonstration to compare with.

    Returns:
        True if the completion is right.

    Raises:
        ConfigError: the scorer's name or params are not usable.
        DataError: the example has nothing to compare with, or its answers do not suit the scorer.
    """
    scorer = _scorer_of(example)
    return SCORERS[scorer.name](completion, example, scorer.params)


def check_scorers(examples: Iterable[Example]) -> None:
    """Finds every error that `score` could raise, before anything slow starts.

    Args:
        examples: a whole data set.

    Raises:
        ConfigError: as `score`; functions of the `callable` scorer are imported (and their `check` is called,
            where they have one), but not called.
        DataError: as `score`.
    """
    for example in examples:
        scorer = _scorer_of(example)
        if scorer.name == "callable":
            getattr(_function(example, scorer.params), "check", lambda: None)()
        else:  # every scorer reads its params and answers before it looks at the completion
            SCORERS[scorer.name]("", example, scorer.params)


def _scorer_of(example: Example) -> Scorer:
    scorer = example.scorer or Scorer("contains" if example.answers else "keywords")
    if scorer.name not in SCORERS:
        raise ConfigError(f"row {example.id!r}: unknown scorer {scorer.name!r}; use one of {', '.join(SCORERS)}")
    known = PARAMS.get(scorer.name, ())
    for name in scorer.params:
        if name not in known:
            raise _wrong_params(example, scorer.name, f"has no param {name!r}; it takes {', '.join(known) or 'none'}")
    return scorer


def _wrong_params(example: Example, scorer: str, problem: str) -> ConfigError:
    return ConfigError(" ".join(f"row {example.id!r}: scorer {scorer!r} {problem}".split()))


def _references(example: Example) -> tuple[str, ...]:
    """What a completion is compared with: the answers or, without any, the demonstration."""
    references = example.answers or ((example.demonstration,) if example.demonstration else ())
    if not references or not all(reference.strip() for reference in references):
        what = "a blank answer" if references else "neither answers nor a demonstration to compare with"
        raise DataError(f"row {example.id!r}: has {what}; give it answers, or leave it out of the evaluation")
    return references


def _folded(text: str) -> str:
    """Text without what no scorer looks at: case, kinds of whitespace, ways to encode an accent."""
    return " ".join(unicodedata.normalize("NFC", text).split()).casefold()


def _exact(completion: str, example: Example, params: Params) -> bool:
    return _bare(completion) in {_bare(reference) for reference in _references(example)}


def _bare(text: str) -> str:
    folded = _folded(text)
    return folded.lstrip(QUOTES + " ").rstrip(QUOTES + " .,;:!?") or folded


def _contains(completion: str, example: Example, params: Params) -> bool:
    every = params.get("all", False)
    if not isinstance(every, bool):
        raise _wrong_params(example, "contains", "needs true or false for its param 'all'")
    text = _folded(completion)
    patterns = [rf"(?<!\w){re.escape(_folded(reference))}(?!\w)" for reference in _references(example)]
    found = [re.search(pattern, text) is not None for pattern in patterns]
    return all(found) if every else any(found)


def _regex(completion: str, example: Example, params: Params) -> bool:
    pattern = params.get("pattern")
    if not isinstance(pattern, str):
        raise _wrong_params(example, "regex", "needs a text for its param 'pattern'")
    try:
        return re.search(pattern, completion.strip()) is not None
    except (re.error, OverflowError, RecursionError) as error:
        raise _wrong_params(example, "regex", f"has a pattern that does not compile ({error}); mend it") from error


# -------------------------------------------------------------------------------------------- choice

LETTER = r"(?<![\w.-])(?<!\w['’])([A-J])(?!\w|['’]\w|[+#]|-\w|\.\w)"  # alone: not "D.C.", "A-level", "I'm", "C++"
CHOICES = tuple(  # the clearest first
    re.compile(pattern)
    for pattern in (
        rf"^\W*{LETTER}\W*$",
        rf"(?i:\banswer(?:\s+(?:is|would\s+be|should\s+be|must\s+be)\b|\s*[:=]))(?:[\s:*_\"“(\[{{$]|\\\w+\{{)*{LETTER}",
        rf"^\W*{LETTER}(?:[*_]*[).:,\]]|\s*\n|\s+[-–—]\s)",
        rf"[(\[{{]{LETTER}[)\]}}]",
        rf"(?i:\b(?:option|choice))\s+{LETTER}",
        LETTER,
    )
)


def _choice(completion: str, example: Example, params: Params) -> bool:
    letters = {_letter(reference) for reference in _references(example)}
    if None in letters:
        raise DataError(f"row {example.id!r}: an answer names no choice from A to J; write one, or another scorer")
    return _letter(completion) in letters


def _letter(text: str) -> str | None:
    """The letter that a text chooses: the first by the clearest pattern that occurs."""
    matches = (match for pattern in CHOICES for match in pattern.finditer(text))
    return next((match[1] for match in matches if not _is_word(text, match)), None)


def _is_word(text: str, match: re.Match[str]) -> bool:
    """Whether a letter is the article or the pronoun: "A cat" and "I think" choose nothing, "A is right" does."""
    after = text[match.end(1) :]
    if not re.match(r"\s+(?!(?:is|because|as|since|and|or)\b)[a-z]", after):
        return False
    before = text[: match.start(1)].rstrip(" ")
    return match[1] == "I" or (match[1] == "A" and (not before or before[-1] in '.!?:*-("“\n'))


# -------------------------------------------------------------------------------------------- number

# A minus after a word or a number is a dash or a difference: "10-5" ends in 5.
NUMBER = re.compile(
    r"(?<!\w)(?<![0-9]\.)(-?)[$€£]?"
    r"((?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?![0-9])(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3}(?![0-9]))?)"
)


def _number(completion: str, example: Example, params: Params) -> bool:
    tolerance = params.get("tolerance", 0.0)
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not 0 <= tolerance < math.inf:
        raise _wrong_params(example, "number", "needs a number from 0 up for its param 'tolerance'")
    wanted = [value for value in map(_last_number, _references(example)) if value is not None]
    if len(wanted) < len(_references(example)):
        raise DataError(f"row {example.id!r}: an answer holds no number; write one, or another scorer")
    given = _last_number(completion)
    slack = Decimal(tolerance)
    return given is not None and any(given == x or abs(given - x) <= slack * abs(x) for x in wanted)


def _last_number(text: str) -> Decimal | None:
    found = NUMBER.findall(text.replace("\N{MINUS SIGN}", "-"))
    return Decimal("".join(found[-1]).replace(",", "")) if found else None


# ----------------------------------------------------------------------------------------- tool_call

Call = tuple[str, dict[str, Any]]  # a name and its arguments; in what is accepted, a list of values an argument
JSON_NAMES = {"true": "True", "false": "False", "null": "None"}  # models write them in Python's syntax too
UNREADABLE = (ValueError, TypeError, SyntaxError, MemoryError, RecursionError, OverflowError)


def _tool_call(completion: str, example: Example, params: Params) -> bool:
    accepted = _accepted_calls(example)
    try:
        given = _calls_in(completion)
        fits = [[a[0] == b[0] and _same_arguments(a[1], b[1]) for b in accepted] for a in given]
        return len(given) == len(accepted) and _can_pair(fits)
    except UNREADABLE:
        return False


def _can_pair(fits: Sequence[Sequence[bool]]) -> bool:
    """Whether each row can have a fitting column of its own (a bipartite matching, by augmenting paths)."""
    owner: dict[int, int] = {}

    def place(row: int, tried: set[int]) -> bool:
        for column, fit in enumerate(fits[row]):
            if fit and column not in tried:
                tried.add(column)
                if column not in owner or place(owner[column], tried):
                    owner[column] = row
                    return True
        return False

    return all(place(row, set()) for row in range(len(fits)))


def _accepted_calls(example: Example) -> list[Call]:
    hint = 'write {"name": …, "arguments": {…}} or {"function": {"argument": [accepted values]}}'
    calls: list[Call] = []
    for reference in _references(example):
        try:
            value = json.loads(reference) if example.answers else None
            for item in value if isinstance(value, list) else [value]:
                calls += _possible_answer(item) if example.answers else _exactly(_calls_in(reference))
        except UNREADABLE as error:
            raise DataError(f"row {example.id!r}: an answer is not a call ({error}); {hint}") from error
    if not calls:
        raise DataError(f"row {example.id!r}: its answers hold no call; {hint}")
    return calls


def _possible_answer(value: Any) -> list[Call]:
    """Accepted calls from one JSON value, in either form."""
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        return [_exactly(_json_call(value))]
    if not isinstance(value, dict) or not value:
        raise ValueError("it is not an object")
    for name, arguments in value.items():
        if not isinstance(arguments, dict) or not all(isinstance(options, list) for options in arguments.values()):
            raise ValueError(f"the arguments of {name!r} are not lists of accepted values")
    return list(value.items())


def _exactly(value: Any) -> Any:
    """Calls, or a part of one, as what is accepted: of each argument, its one value."""
    if isinstance(value, dict):
        return {name: [_exactly(item)] for name, item in value.items()}
    return [_exactly(item) for item in value] if isinstance(value, (list, tuple)) else value


def _same_arguments(given: Mapping[str, Any], accepted: Mapping[str, Any]) -> bool:
    """Every argument has an accepted value; one that accepts "" may be missing."""
    for name, listed in accepted.items():
        options = listed if isinstance(listed, list) else [listed]
        fits = any(_same_value(given[name], option) for option in options) if name in given else "" in options
        if not fits:
            return False
    return all(name in accepted for name in given)


def _same_value(given: Any, option: Any) -> bool:
    if isinstance(option, dict):
        return isinstance(given, dict) and _same_arguments(given, option)
    if isinstance(option, list):
        same_length = isinstance(given, (list, tuple)) and len(given) == len(option)
        return same_length and all(map(_same_value, given, option))
    if isinstance(option, str):
        return isinstance(given, str) and _folded(given) == _folded(option)
    if isinstance(option, bool) or option is None or isinstance(given, bool):
        return given is option
    return isinstance(given, (int, float)) and (given == option or math.isclose(given, option, rel_tol=1e-9))


def _calls_in(text: str) -> list[Call]:
    """The calls that a text consists of, in JSON or Python's syntax, which is never run; or one of `UNREADABLE`."""
    blocks = re.findall(r"<tool_call>(.*?)(?:</tool_call>|\Z)", text, re.DOTALL) or [text]
    calls: list[Call] = []
    for block in blocks:
        for part in re.findall(r"```(?:json|python|\w*\n)?(.*?)(?:```|\Z)", block, re.DOTALL) or [block]:
            try:
                value = json.loads(part)
            except json.JSONDecodeError:
                calls += _python_calls(part)
            else:
                calls += map(_json_call, value if isinstance(value, list) else [value])
    return calls


def _json_call(value: Any) -> Call:
    """{"name": …, "arguments": {…} or its JSON as text}, perhaps inside {"function": …}."""
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise ValueError("it has no name")
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = json.loads(arguments)
    if not isinstance(arguments, dict):
        raise ValueError("its arguments are not an object")
    return value["name"], arguments


def _python_calls(text: str) -> list[Call]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about escapes such as "\d" in what a model wrote
        tree = ast.parse(text.strip())
    values = [statement.value if isinstance(statement, ast.Expr) else None for statement in tree.body]
    lists = [value.elts if isinstance(value, (ast.List, ast.Tuple)) else [value] for value in values]
    return [_python_call(node) for nodes in lists for node in nodes]


def _python_call(node: ast.expr | None) -> Call:
    if not isinstance(node, ast.Call) or not isinstance(node.func, (ast.Name, ast.Attribute)):
        raise ValueError("it is not a call")
    if node.args or any(keyword.arg is None for keyword in node.keywords):
        raise ValueError("it has an argument without a name")
    for name in ast.walk(node):
        if isinstance(name, ast.Name):
            name.id = JSON_NAMES.get(name.id, name.id)
    arguments = {str(word.arg): ast.literal_eval(ast.unparse(word.value)) for word in node.keywords}
    return ast.unparse(node.func), arguments


# ---------------------------------------------------------------------------------- callable, keywords


def _callable(completion: str, example: Example, params: Params) -> bool:
    function = _function(example, params)
    try:
        right = function(completion, example)
    except Exception as error:
        raise _wrong_params(example, "callable", f"failed in {params['path']} ({error!r}); mend it") from error
    if not isinstance(right, bool):
        raise _wrong_params(example, "callable", f"got {type(right).__name__} from {params['path']}; return a bool")
    return right


def _function(example: Example, params: Params) -> Callable[[str, Example], Any]:
    path = params.get("path")
    if not isinstance(path, str) or not re.fullmatch(r"[\w.]+:\w+", path):
        raise _wrong_params(example, "callable", "needs package.module:function for its param 'path'")
    module, _, name = path.partition(":")
    try:
        function: Callable[[str, Example], Any] = getattr(importlib.import_module(module), name)
    except Exception as error:  # a module may raise anything while it is imported
        raise _wrong_params(example, "callable", f"cannot import {path} ({error!r}); check PYTHONPATH") from error
    if not callable(function):
        raise _wrong_params(example, "callable", f"found no function in {path}; name one")
    return function


def _keywords(completion: str, example: Example, params: Params) -> bool:
    references = _references(example)
    if example.demonstration and example.demonstration.strip():
        references = (example.demonstration,)
    return any(_has_keywords(completion, reference, example.question) for reference in references)


def _has_keywords(completion: str, reference: str, question: str) -> bool:
    """Whether all numbers, and two thirds of the other content words, are there; the question's own are free."""
    said = _words(completion)
    content = _words(reference) - STOP_WORDS
    wanted = content - _words(question) or content or _words(reference)
    if not wanted:  # a reference of signs alone, such as "+"
        return _bare(completion) == _bare(reference)
    others = {word for word in wanted if not word.isdecimal()}
    return wanted - others <= said and 3 * len(others & said) >= 2 * len(others)


def _words(text: str) -> set[str]:  # "5,400" is one
    return set(re.findall(r"\w+", re.sub(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))", "", _folded(text))))


_FUNCTIONS = (_exact, _choice, _contains, _number, _regex, _tool_call, _callable, _keywords)
SCORERS: Mapping[str, Callable[[str, Example, Params], bool]] = dict(zip(SCORER_NAMES, _FUNCTIONS, strict=True))
PARAMS = {"contains": ("all",), "number": ("tolerance",), "regex": ("pattern",), "callable": ("path",)}
