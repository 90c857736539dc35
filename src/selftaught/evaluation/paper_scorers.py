"""How the paper scores its three skills: functions for the `callable` scorer.

* `science`: what stands in the last <answer> tag is the right letter, and nothing else is in it.
* `tools`: the multiset of actions, and the JSON inputs merged in their order, are those asked for.
* `judge`: a language model finds the answer right. Any server with OpenAI's chat interface will do; it is named
  by SELFTAUGHT_JUDGE_URL (ending in /v1), SELFTAUGHT_JUDGE_MODEL and, where it needs one, SELFTAUGHT_JUDGE_KEY.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from selftaught.errors import ConfigError, DataError
from selftaught.evaluation.chat import chat_reply
from selftaught.types import Example

URL, MODEL, KEY = "SELFTAUGHT_JUDGE_URL", "SELFTAUGHT_JUDGE_MODEL", "SELFTAUGHT_JUDGE_KEY"


def _reference(example: Example) -> str:
    """What a completion is compared with: the first answer or, without any, the demonstration."""
    reference = example.answers[0] if example.answers else example.demonstration
    if not reference or not reference.strip():
        raise DataError(f"row {example.id!r}: has neither answers nor a demonstration to compare with")
    return reference


def science(completion: str, example: Example) -> bool:
    """Whether the completion's tagged answer is the reference's; without a tag, the whole text is the answer."""
    return _tagged(completion) == _tagged(_reference(example))


def _tagged(text: str) -> str:
    return text.rpartition("<answer>")[2].partition("</answer>")[0].strip()


# -------------------------------------------------------------------------------------------- tools


def tools(completion: str, example: Example) -> bool:
    """Whether the completion calls what is asked for: how often each action, and the merged inputs."""
    return _called(completion) == _asked_for(example)


def _called(text: str) -> tuple[Counter[str], dict[str, Any]]:
    """The actions that a text calls, and their inputs merged; of one name, the last value stays.

    An input that is not JSON adds nothing, as in the paper's own scorer; unlike there, inputs may be nested.
    """
    inputs: dict[str, Any] = {}
    for begin in re.finditer(r"Action Input:\s*(?=\{)", text):
        try:
            inputs.update(json.JSONDecoder().raw_decode(text, begin.end())[0])
        except (ValueError, RecursionError):
            continue
    return Counter(re.findall(r"Action:\s*(\w+)", text)), inputs


def _asked_for(example: Example) -> tuple[Counter[str], dict[str, Any]]:
    """The same of the reference: a JSON list of {"Action", "Action_Input"}, or text in the completion's form."""
    if not example.answers:
        return _called(_reference(example))
    inputs: dict[str, Any] = {}
    try:
        calls = json.loads(_reference(example))
        for call in calls:
            given = call["Action_Input"]
            inputs.update(_object(given))
        return Counter(call["Action"] for call in calls), inputs
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise DataError(
            f"row {example.id!r}: its answer is no list of calls ({error}); "
            'write [{"Action": …, "Action_Input": "{…}"}]'
        ) from error


def _object(given: Any) -> Mapping[str, Any]:
    """An input as an object; one that is not JSON is nothing."""
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            return {}
    return given if isinstance(given, Mapping) else {}


# -------------------------------------------------------------------------------------------- judge

INSTRUCTION = """You grade answers to medical questions. Compare the answer with the reference: it is right if it \
says what the reference says, in whatever words and with whatever else that is true; it is wrong if it misses the \
point, contradicts the reference, or says something medically false. Length and style do not count.

Question:
{question}

Reference:
{reference}

Answer:
{completion}

Reply with one word, CORRECT or INCORRECT."""


class Judge:
    """Asks a language model whether a completion is right."""

    def check(self) -> None:
        """Finds out, before anything slow starts, whether a judge is named.

        Raises:
            ConfigError: none is.
        """
        url = os.environ.get(URL, "")
        if not url.startswith(("http://", "https://")) or not os.environ.get(MODEL):
            raise ConfigError(
                f"these rows are judged by a language model, and none is named; set {URL} (such as "
                f"https://api.openai.com/v1), {MODEL} (the paper's: gpt-5-mini) and, if the server needs one, {KEY}"
            )

    def __call__(self, completion: str, example: Example) -> bool:
        """Judges one completion.

        Raises:
            ConfigError: no judge is named, it does not answer, or says neither right nor wrong.
        """
        self.check()
        if not completion.strip():
            return False
        texts = {"question": example.question, "reference": _reference(example), "completion": completion}
        # In one pass: braces in the texts are theirs.
        prompt = re.sub(r"\{(question|reference|completion)\}", lambda name: texts[name[1]], INSTRUCTION)
        hint = f"check {URL}, {MODEL}, {KEY}"
        verdict = chat_reply(os.environ[URL], os.environ[MODEL], os.environ.get(KEY), prompt, hint).upper()
        if "CORRECT" not in verdict:
            raise ConfigError(f"{os.environ[URL]}: the judge said {verdict[:60]!r}, not CORRECT or INCORRECT")
        return "INCORRECT" not in verdict


judge = Judge()
