"""Whatever the examples, every format brings them back; whatever the bytes, only DataError comes out."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example as case
from hypothesis import given, settings
from hypothesis import strategies as st

from selftaught.data import data_hash, load_examples
from selftaught.data.validate import OPTIONAL, REQUIRED
from selftaught.errors import DataError
from selftaught.types import SCORER_NAMES, Example, Message, Scorer

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20).filter(str.strip)
names = texts.map(str.strip)
json_values = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def prompts(draw: st.DrawFn, turns: int) -> tuple[Message, ...]:
    system = [Message("system", text) for text in draw(st.lists(texts, max_size=1))]
    spoken = draw(st.lists(texts, min_size=1, max_size=turns).filter(lambda turns: len(turns) % 2 == 1))
    return (*system, *(Message("assistant" if i % 2 else "user", text) for i, text in enumerate(spoken)))


@st.composite
def data_sets(draw: st.DrawFn, simple: bool = False) -> list[Example]:
    """Examples; `simple` ones fit into CSV."""
    answers = names.filter(lambda text: "|" not in text) if simple else texts
    params = st.just({}) if simple else st.dictionaries(names, json_values, max_size=2)
    one = st.builds(
        Example,
        id=names,
        prompt=prompts(1 if simple else 5),
        demonstration=texts,
        context=st.none() | texts,
        answers=st.lists(answers, max_size=3).map(tuple),
        scorer=st.none() | st.builds(Scorer, st.sampled_from(SCORER_NAMES), params),
        group=names,
        split=st.sampled_from(["train", "test"]),
    )
    examples = draw(st.lists(one, min_size=1, max_size=4, unique_by=lambda e: e.id))
    distinct = {(e.prompt, e.demonstration): e for e in examples}
    return list(distinct.values())


def turns(messages: tuple[Message, ...]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def common(example: Example) -> dict[str, Any]:
    scorer = example.scorer and {"name": example.scorer.name, "params": dict(example.scorer.params)}
    return {
        "id": example.id,
        "context": example.context,
        "answers": list(example.answers),
        "scorer": scorer,
        "group": example.group,
        "split": example.split,
    }


def as_messages(e: Example) -> dict[str, Any]:
    return {**common(e), "messages": [*turns(e.prompt), {"role": "assistant", "content": e.demonstration}]}


def as_prompt_completion(e: Example) -> dict[str, Any]:
    return {**common(e), "prompt": turns(e.prompt), "completion": [{"role": "assistant", "content": e.demonstration}]}


def as_privileged_context(e: Example) -> dict[str, Any]:
    return {**common(e), "prompt": turns(e.prompt), "privileged_context": e.demonstration}


def as_question_answer(e: Example) -> dict[str, Any]:
    system = e.prompt[0].content if e.prompt[0].role == "system" else None
    return {**common(e), "system": system, "question": e.question, "answer": e.demonstration}


def load(data: bytes, suffix: str) -> list[Example]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows" + suffix)
        path.write_bytes(data)
        return load_examples(path)


def write_parquet(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def write_csv(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]))
    writer.writeheader()
    for row in rows:
        writer.writerow({**row, "answers": "|".join(row["answers"]), "scorer": row["scorer"] and row["scorer"]["name"]})
    return buffer.getvalue().encode()


@settings(deadline=None, max_examples=20)
@pytest.mark.parametrize("write", [as_messages, as_prompt_completion, as_privileged_context])
@pytest.mark.parametrize("ascii_only", [True, False])
@given(examples=data_sets())
def test_jsonl_and_json_bring_examples_back(write: Any, ascii_only: bool, examples: list[Example]) -> None:
    lines = [json.dumps(write(example), ensure_ascii=ascii_only) for example in examples]
    assert load("\n".join(lines).encode(), ".jsonl") == examples
    assert load(f"[{','.join(lines)}]".encode(), ".json") == examples


@settings(deadline=None, max_examples=25)
@given(examples=data_sets(simple=True))
def test_csv_parquet_and_jsonl_agree(examples: list[Example]) -> None:
    rows = [as_question_answer(example) for example in examples]
    lines = "\n".join(json.dumps(row) for row in rows).encode()
    named = [{**row, "scorer": row["scorer"] and row["scorer"]["name"]} for row in rows]
    loaded = [load(write_csv(rows), ".csv"), load(lines, ".jsonl"), load(write_parquet(named), ".parquet")]
    assert loaded == [examples] * 3
    assert {data_hash(each) for each in loaded} == {data_hash(examples)}


@settings(deadline=None, max_examples=25)
@pytest.mark.parametrize("write", [as_messages, as_prompt_completion, as_privileged_context])
@given(examples=data_sets(simple=True))
def test_parquet_brings_conversations_back(write: Any, examples: list[Example]) -> None:
    rows = [write(example) for example in examples]
    for row in rows:  # Parquet cannot hold an object without fields
        row["scorer"] = row["scorer"] and {"name": row["scorer"]["name"]}
    assert load(write_parquet(rows), ".parquet") == examples


QUESTION = json.dumps({"question": "a", "answer": "b", "answers": ["c"], "scorer": "exact"}).encode()


@settings(deadline=None, max_examples=80)
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
@given(data=st.binary(max_size=60))
@case(data=b"\xff\xfe")
@case(data=b"[" * 100_000)
@case(data=b'"' * 7)
@case(data=b"\r")
@case(data=b"{}\n[]\n0")
@case(data=b"PAR1PAR1PAR1")
def test_arbitrary_bytes_raise_only_data_errors(suffix: str, data: bytes) -> None:
    only_data_errors(data, suffix)


@settings(deadline=None, max_examples=80)
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@given(place=st.integers(0, 10_000), patch=st.binary(min_size=1, max_size=4))
def test_damaged_files_raise_only_data_errors(suffix: str, place: int, patch: bytes) -> None:
    rows = [json.loads(QUESTION), {"question": "d", "answer": "e", "answers": [], "scorer": "number"}]
    whole = {
        ".jsonl": QUESTION + b"\n" + QUESTION,
        ".csv": b"question,answer,scorer\na,b,exact\n",
        ".parquet": write_parquet(rows),
    }[suffix]
    place %= len(whole)
    only_data_errors(whole[:place] + patch + whole[place + len(patch) :], suffix)


@settings(deadline=None, max_examples=80)
@given(
    row=st.dictionaries(
        st.sampled_from([*REQUIRED, *OPTIONAL]),
        json_values
        | st.none()
        | st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": texts})),
    )
)
def test_arbitrary_rows_raise_only_data_errors(row: dict[str, Any]) -> None:
    only_data_errors(json.dumps(row).encode(), ".jsonl")


def only_data_errors(data: bytes, suffix: str) -> None:
    try:
        assert load(data, suffix)
    except DataError as error:
        assert "rows" + suffix in str(error)
        assert "\n" not in str(error)
