"""The rows that both sides of the benchmark train on, written to one JSON file.

Three kinds:

corpus     the facts that the quickstart teaches: question, article, answer
tools      function calls (BFCL's simple_python): question and schema, the call as one line of JSON
synthetic  the corpus's own prose, cut to exact lengths in tokens

Every row is tokenised by the code that selftaught trains with. The file is a list of

    {"id", "prompt": [messages], "teacher_prompt": [messages], "demonstration",
     "prompt_ids", "teacher_ids", "target_ids"}

where `target_ids` are the demonstration's tokens and the stop token.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import random
from collections.abc import Sequence
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from selftaught.config import LearnConfig, PromptConfig
from selftaught.data.corpora import QUICKSTART_EVENTS, disasters
from selftaught.data.packages import read_member, wheel
from selftaught.errors import DataError
from selftaught.models.load import LanguageModel, load_model
from selftaught.prompts import render, teacher_messages
from selftaught.train.batch import TrainRow
from selftaught.train.rows import prepare
from selftaught.types import Example, Message, Scorer

TOOLS_PACKAGE = "bfcl-eval==2026.3.23"
TOOLS_SHA256 = "3bb6dfa5f0c68ad403c9ec50b00db2bb3b4cc9b38ab1ff33f48fe30d853d3a0a"
TOOLS_QUESTIONS = "bfcl_eval/data/BFCL_v4_simple_python.json"
TOOLS_ANSWERS = "bfcl_eval/data/possible_answer/BFCL_v4_simple_python.json"
TOOLS_INSTRUCTION = 'Answer with one line of JSON: {"name": the function\'s name, "arguments": {its arguments}}.'

Range = tuple[int, int]  # shortest and longest, in tokens, both included


def corpus_examples() -> list[Example]:
    """The questions that the quickstart teaches, each with its article."""
    return [example for example in disasters(QUICKSTART_EVENTS) if example.split == "train"]


# --------------------------------------------------------------------------------------------- tools


def tool_examples() -> list[Example]:
    """400 questions, each with one function's schema; the demonstration is the call that answers it.

    Raises:
        DataError: the package cannot be downloaded, or is not the one expected.
    """
    package = wheel(TOOLS_PACKAGE, TOOLS_SHA256)
    questions = _json_lines(read_member(package, TOOLS_QUESTIONS))
    answers = {row["id"]: row["ground_truth"][0] for row in _json_lines(read_member(package, TOOLS_ANSWERS))}
    return [_tool_example(row, answers[row["id"]]) for row in questions]


def _tool_example(row: dict[str, Any], accepted: dict[str, dict[str, list[Any]]]) -> Example:
    ((name, arguments),) = accepted.items()
    schema = json.dumps(row["function"][0], ensure_ascii=False, separators=(",", ":"))
    question = row["question"][0][-1]["content"]
    call = {"name": name, "arguments": _first_accepted(arguments)}
    return Example(
        id=row["id"],
        prompt=(Message("user", f"{question}\n\n{schema}\n\n{TOOLS_INSTRUCTION}"),),
        demonstration=json.dumps(call, ensure_ascii=False),
        answers=(json.dumps(accepted, ensure_ascii=False),),
        scorer=Scorer("tool_call"),
    )


def _first_accepted(arguments: dict[str, list[Any]]) -> dict[str, Any]:
    """The first accepted value of each argument; "" means that the argument may be left out."""
    chosen = {name: [value for value in values if value != ""] for name, values in arguments.items()}
    return {name: _resolved(values[0]) for name, values in chosen.items() if values}


def _resolved(value: Any) -> Any:
    """An accepted value; objects inside it list accepted values again."""
    if isinstance(value, dict):
        return _first_accepted(value)
    return [_resolved(item) for item in value] if isinstance(value, list) else value


def _json_lines(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.decode("utf-8").splitlines()]


# ----------------------------------------------------------------------------------------- synthetic


class Prose:
    """The corpus's own words, in passages of exact lengths in tokens."""

    def __init__(self, tokenizer: Any, rng: random.Random) -> None:
        self._tokenizer = tokenizer
        self._rng = rng
        self._words = _corpus_words()

    def passage(self, num_tokens: int) -> str:
        """A running passage of the corpus, of exactly `num_tokens` tokens."""
        start = self._rng.randrange(len(self._words))
        words, used = ["The"], 1
        for word in islice(cycle(self._words), start, None):
            cost = self._cost(word)
            if used + cost > num_tokens:
                break
            words.append(word)
            used += cost
        words += ["and"] * (num_tokens - used)  # a word of one token
        text = " ".join(words)
        assert len(self._tokenizer(text, add_special_tokens=False)["input_ids"]) == num_tokens, text
        return text

    @cache  # noqa: B019 - one object a run
    def _cost(self, word: str) -> int:
        return len(self._tokenizer(" " + word, add_special_tokens=False)["input_ids"])


def _corpus_words() -> list[str]:
    articles = dict.fromkeys(example.context for example in disasters() if example.context)
    return [word for article in articles for word in article.split()]


def synthetic_examples(
    tokenizer: Any,
    num_rows: int,
    seed: int = 0,
    prompt_tokens: Range = (64, 512),
    context_tokens: Range = (256, 2048),
    target_tokens: Range = (16, 256),
) -> list[Example]:
    """Rows of the corpus's prose whose lengths are drawn log-uniformly, so that most are short and few are long.

    Args:
        tokenizer: the model's.
        num_rows: number of rows.
        seed: of lengths and passages.
        prompt_tokens: the student's whole prompt, the chat template's own tokens included.
        context_tokens: the document that only the teacher sees; it sees prompt and demonstration too.
        target_tokens: the demonstration with its stop token.

    Raises:
        DataError: the shortest prompt is shorter than the chat template alone.
    """
    rng = random.Random(f"synthetic/{seed}")
    prose = Prose(tokenizer, rng)
    template = len(render((Message("user", "The"),), tokenizer)) - 1
    if prompt_tokens[0] <= template:
        raise DataError(f"a prompt of {prompt_tokens[0]} tokens is not longer than the chat template's own {template}")
    examples = []
    for number in range(num_rows):
        prompt, context, target = (_log_uniform(rng, span) for span in (prompt_tokens, context_tokens, target_tokens))
        example = Example(
            id=f"synthetic-{number}",
            prompt=(Message("user", prose.passage(prompt - template)),),
            demonstration=prose.passage(target - 1),
            context=prose.passage(context),
        )
        assert len(render(example.prompt, tokenizer)) == prompt, example.id
        examples.append(example)
    return examples


def _log_uniform(rng: random.Random, span: Range) -> int:
    low, high = span
    return round(math.exp(rng.uniform(math.log(low), math.log(high))))


# ------------------------------------------------------------------------------------- token ids, file


def make_rows(examples: Sequence[Example], model: LanguageModel) -> list[dict[str, Any]]:
    """Each example as texts and as the token ids that selftaught trains on.

    Raises:
        DataError: a row does not fit the model.
    """
    config = LearnConfig(method="sdft", prompts=PromptConfig(max_teacher_tokens=model.max_tokens))
    _, rows = prepare(examples, model, config)
    return [
        {
            "id": example.id,
            "prompt": [dataclasses.asdict(message) for message in example.prompt],
            "teacher_prompt": [dataclasses.asdict(message) for message in teacher_messages(example, config.prompts)],
            "demonstration": example.demonstration,
            "prompt_ids": row.prompt,
            "teacher_ids": row.teacher_prompt,
            "target_ids": row.target,
        }
        for example, row in zip(examples, rows, strict=True)
    ]


def write_rows(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes rows for both sides to read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")


def read_rows(path: Path) -> list[TrainRow]:
    """The rows of a file, as selftaught trains on them."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [
        TrainRow(row["id"], tuple(row["prompt_ids"]), tuple(row["teacher_ids"]), tuple(row["target_ids"]))
        for row in rows
    ]


# ------------------------------------------------------------------------------------------- command


def _span(text: str) -> Range:
    """Reads "64:512" or "64"."""
    low, _, high = text.partition(":")
    return int(low), int(high or low)


def main() -> None:
    """Writes one file of rows and prints how long they are."""
    parser = argparse.ArgumentParser(description="Make the rows of a benchmark.")
    parser.add_argument("kind", choices=["corpus", "tools", "synthetic"])
    parser.add_argument("--model", default="smollm2-135m", help="a transformers directory or selftaught's name")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=None, help="number of rows (corpus 40, tools 400, synthetic 16)")
    parser.add_argument("--seed", type=int, default=0, help="of the synthetic rows")
    parser.add_argument("--prompt-tokens", type=_span, default=(64, 512), help="shortest:longest (synthetic)")
    parser.add_argument("--context-tokens", type=_span, default=(256, 2048), help="shortest:longest (synthetic)")
    parser.add_argument("--target-tokens", type=_span, default=(16, 256), help="shortest:longest (synthetic)")
    args = parser.parse_args()
    model = load_model(args.model)
    if args.kind == "corpus":
        examples = corpus_examples()
    elif args.kind == "tools":
        examples = tool_examples()
    else:
        examples = synthetic_examples(
            model.tokenizer, args.limit or 16, args.seed, args.prompt_tokens, args.context_tokens, args.target_tokens
        )
    rows = make_rows(examples[: args.limit], model)
    write_rows(rows, args.out)
    print(f"{args.out}: {len(rows)} rows of kind {args.kind}")
    for name in ("prompt_ids", "teacher_ids", "target_ids"):
        lengths = sorted(len(row[name]) for row in rows)
        print(f"  {name:12} {lengths[0]} to {lengths[-1]} tokens, mean {sum(lengths) / len(lengths):.0f}")


if __name__ == "__main__":
    main()
