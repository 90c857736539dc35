"""Every format and every error of `load_examples`."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selftaught.data import data_hash, load_examples
from selftaught.errors import DataError
from selftaught.types import Example, Message, Scorer

QA = {"question": "Capital of France?", "answer": "Paris is the capital."}
USER = {"role": "user", "content": "Hello?"}
ASSISTANT = {"role": "assistant", "content": "Hello!"}
SYSTEM = {"role": "system", "content": "Be kind."}


def user(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


def jsonl(folder: Path, *rows: Any) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


def write_csv(folder: Path, text: str | bytes) -> Path:
    path = folder / "rows.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def parquet(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def problem(path: Path | str) -> str:
    """The message of the one error that loading must raise: one line that names the file."""
    with pytest.raises(DataError) as caught:
        load_examples(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


# ------------------------------------------------------------------------------------------- formats


def test_question_and_answer(tmp_path: Path) -> None:
    [example] = load_examples(jsonl(tmp_path, QA))
    assert example == Example("row-1", user("Capital of France?"), "Paris is the capital.")


def test_messages_keep_system_turn_and_history(tmp_path: Path) -> None:
    turns = [SYSTEM, USER, ASSISTANT, {"role": "user", "content": "And?"}, {"role": "assistant", "content": "Bye."}]
    [example] = load_examples(jsonl(tmp_path, {"messages": turns}))
    assert [(m.role, m.content) for m in example.prompt] == [(t["role"], t["content"]) for t in turns[:-1]]
    assert example.demonstration == "Bye."
    assert example.question == "And?"


@pytest.mark.parametrize("end", [[], [{"role": "assistant", "content": " "}], [{"role": "assistant", "content": None}]])
def test_messages_without_a_final_answer_are_test_rows(tmp_path: Path, end: list[Any]) -> None:
    [example] = load_examples(jsonl(tmp_path, {"messages": [USER, *end], "split": "test"}))
    assert example == Example("row-1", user("Hello?"), split="test")


@pytest.mark.parametrize("prompt", ["Hello?", [USER]])
@pytest.mark.parametrize("completion", ["Hello!", [ASSISTANT]])
def test_prompt_and_completion(tmp_path: Path, prompt: Any, completion: Any) -> None:
    [example] = load_examples(jsonl(tmp_path, {"prompt": prompt, "completion": completion}))
    assert example == Example("row-1", user("Hello?"), "Hello!")


@pytest.mark.parametrize("prompt", ["Hello?", [USER]])
@pytest.mark.parametrize(
    ("privileged", "text"), [("Hello!", "Hello!"), ([ASSISTANT], "Hello!"), ([USER, ASSISTANT], "Hello?\n\nHello!")]
)
def test_prompt_and_privileged_context(tmp_path: Path, prompt: Any, privileged: Any, text: str) -> None:
    [example] = load_examples(jsonl(tmp_path, {"prompt": prompt, "privileged_context": privileged}))
    assert example == Example("row-1", user("Hello?"), text)


def test_each_row_is_detected_on_its_own_and_the_first_format_wins(tmp_path: Path) -> None:
    rows = [
        QA,
        {"prompt": "One?", "completion": "1"},
        {"prompt": "only a copy", "messages": [USER, ASSISTANT]},
        {"prompt": "Two?", "privileged_context": "2"},
    ]
    loaded = load_examples(jsonl(tmp_path, *rows))
    assert [e.question for e in loaded] == ["Capital of France?", "One?", "Hello?", "Two?"]
    assert [e.demonstration for e in loaded] == ["Paris is the capital.", "1", "Hello!", "2"]


def test_optional_columns(tmp_path: Path) -> None:
    row = {
        **QA,
        "system": "Be brief.",
        "context": "France is a country.",
        "id": "fr",
        "answers": ["Paris", 75],
        "scorer": {"name": "contains", "params": {"all": True, "unset": None}},
        "group": "indirect",
        "split": "test",
        "source_url": "unknown columns are allowed",
    }
    [example] = load_examples(jsonl(tmp_path, row))
    assert example == Example(
        id="fr",
        prompt=(Message("system", "Be brief."), Message("user", "Capital of France?")),
        demonstration="Paris is the capital.",
        context="France is a country.",
        answers=("Paris", "75"),
        scorer=Scorer("contains", {"all": True}),
        group="indirect",
        split="test",
    )


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("train", "train"),
        ("test", "test"),
        ("validation", "validation"),
        ("eval", "validation"),
        ("Test", "test"),
        ("", "train"),
    ],
)
def test_splits(tmp_path: Path, written: str, read: str) -> None:
    assert load_examples(jsonl(tmp_path, {**QA, "split": written}))[0].split == read


@pytest.mark.parametrize(("answer", "text"), [(42, "42"), (4.5, "4.5"), (-1, "-1")])
def test_a_number_as_answer_becomes_text(tmp_path: Path, answer: Any, text: str) -> None:
    assert load_examples(jsonl(tmp_path, {"question": "?", "answer": answer}))[0].demonstration == text


@pytest.mark.parametrize(
    "row", [{"question": "Q?", "answers": ["a"]}, {"prompt": "Q?"}, {"prompt": "Q?", "completion": ""}]
)
def test_a_test_row_needs_no_demonstration(tmp_path: Path, row: dict[str, Any]) -> None:
    [example] = load_examples(jsonl(tmp_path, {**row, "split": "test"}))
    assert (example.question, example.demonstration) == ("Q?", None)


def test_null_and_blank_optional_columns_count_as_absent(tmp_path: Path) -> None:
    row = {**QA, "system": "", "context": " ", "id": None, "answers": None, "scorer": "", "group": "", "messages": None}
    assert load_examples(jsonl(tmp_path, row)) == load_examples(jsonl(tmp_path, QA))


def test_the_default_scorer_yields_to_the_rows_own(tmp_path: Path) -> None:
    path = jsonl(tmp_path, QA, {"question": "2?", "answer": "2", "scorer": "exact"})
    assert [e.scorer for e in load_examples(path, scorer=Scorer("number"))] == [Scorer("number"), Scorer("exact")]


def test_a_system_column_joins_a_message_list(tmp_path: Path) -> None:
    [example] = load_examples(jsonl(tmp_path, {"prompt": [USER], "completion": "x", "system": "Be kind."}))
    [same] = load_examples(jsonl(tmp_path, {"prompt": [SYSTEM, USER], "completion": "x", "system": "Be kind."}))
    assert example == same
    assert [m.role for m in example.prompt] == ["system", "user"]


def test_the_same_prompt_may_have_two_demonstrations(tmp_path: Path) -> None:
    assert len(load_examples(jsonl(tmp_path, QA, {**QA, "answer": "It is Paris."}))) == 2


def test_jsonl_skips_blank_lines_and_keeps_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "rows.JSONL"
    path.write_bytes(
        b"\xef\xbb\xbf\r\n" + json.dumps(QA).encode() + b'\r\n\n{"question": "a\xe2\x80\xa8b", "answer": 1}\n\n\n'
    )
    first, second = load_examples(str(path))
    assert (first.id, second.id) == ("row-2", "row-4")
    assert second.question == "a\u2028b"


def test_json_list(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([QA, {"prompt": "x", "completion": "y"}], indent=1))
    assert [e.id for e in load_examples(path)] == ["row-1", "row-2"]


def test_csv(tmp_path: Path) -> None:
    text = (
        "\ufeffid, question ,answer,system,context,answers,scorer,group,split\r\n"
        '1,"Two\nlines, ""quoted""?",yes,Be brief.,A document,Yes | indeed,contains,indirect,\r\n'
        "\r\n"
        "2,é?,no,,,,,,validation\r\n"
    )
    first, second = load_examples(write_csv(tmp_path, text))
    assert first == Example(
        id="1",
        prompt=(Message("system", "Be brief."), Message("user", 'Two\nlines, "quoted"?')),
        demonstration="yes",
        context="A document",
        answers=("Yes", "indeed"),
        scorer=Scorer("contains"),
        group="indirect",
    )
    assert second == Example("2", user("é?"), "no", split="validation")


def test_csv_reads_long_documents_and_leaves_the_library_as_it_was(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    [example] = load_examples(write_csv(tmp_path, f"question,answer,context\nq,a,{'x' * (before + 1)}\n"))
    assert len(example.context or "") == before + 1
    assert csv.field_size_limit() == before


def test_csv_rows_are_numbered_without_the_header(tmp_path: Path) -> None:
    assert [e.id for e in load_examples(write_csv(tmp_path, "prompt,completion\na,b\n\nc,d\n"))] == ["row-1", "row-2"]


def test_parquet_with_mixed_formats(tmp_path: Path) -> None:
    rows = [
        {**QA, "messages": None, "scorer": None, "answers": None},
        {"messages": [USER, ASSISTANT], "scorer": {"name": "number", "params": {"tolerance": 1}}, "answers": ["1"]},
        {"messages": [SYSTEM, USER, ASSISTANT], "scorer": {"name": "regex", "params": {"pattern": "x"}}},
    ]
    loaded = load_examples(parquet(tmp_path, *rows))
    assert loaded[0] == Example("row-1", user(QA["question"]), QA["answer"])
    assert loaded[1] == Example(
        "row-2", user("Hello?"), "Hello!", answers=("1",), scorer=Scorer("number", {"tolerance": 1})
    )
    assert loaded[2].scorer == Scorer("regex", {"pattern": "x"})
    assert loaded[2].prompt[0] == Message("system", "Be kind.")


@pytest.mark.parametrize(
    ("source", "asked", "split"),
    [
        ("owner/name", "train", "train"),
        ("owner/name:train[:10]", "train[:10]", "train"),
        ("owner/v1.0:test", "test", "test"),
        ("owner/name:validation[:5]", "validation[:5]", "validation"),
        ("owner/name:train_sft", "train_sft", "train"),
    ],
)
def test_hub(monkeypatch: pytest.MonkeyPatch, source: str, asked: str, split: str) -> None:
    calls = []

    def load_dataset(name: str, *, split: str) -> datasets.Dataset:
        calls.append((name, split))
        return datasets.Dataset.from_list([{"messages": [USER, ASSISTANT], "answers": ["hello"]}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    [example] = load_examples(source)
    assert calls == [(source.partition(":")[0], asked)]
    assert (example.demonstration, example.answers, example.split) == ("Hello!", ("hello",), split)


def test_hub_rows_are_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: datasets.Dataset.from_list([{"text": "x"}]))
    assert "row 1: has the columns 'text'; a row needs messages" in problem("owner/name")


def test_hub_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(name: str, *, split: str) -> None:
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    message = problem("owner/name:test")
    assert "no such file, and as a hub data set it cannot be loaded (no network)" in message
    assert "check the name, the split and the network" in message


def test_a_local_file_is_preferred_to_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("owner").mkdir()
    Path("owner/name").write_text("x")
    assert "no suffix is not a format we read" in problem("owner/name")


def test_text_formats_do_not_import_heavy_libraries(tmp_path: Path) -> None:
    import subprocess

    code = (
        "import sys; from selftaught.data import load_examples; load_examples(sys.argv[1]); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'datasets', 'pyarrow')))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(jsonl(tmp_path, QA))], check=False).returncode == 0


# ------------------------------------------------------------------------------- errors of a whole file


@pytest.mark.parametrize("name", ["none.jsonl", "none.csv", "none.parquet", "none.json", "data/none.txt", "none"])
def test_missing_file(name: str) -> None:
    assert "no such file; check the path" in problem(name)
    with pytest.raises(DataError, match="no such file"):
        load_examples(Path(name))


def test_a_path_never_means_the_hub() -> None:
    with pytest.raises(DataError, match="no such file; check the path"):
        load_examples(Path("owner/name"))


def test_folder(tmp_path: Path) -> None:
    assert "is a folder, not a file" in problem(tmp_path)


def test_unsupported_suffix(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_text("x")
    assert ".xlsx is not a format we read; use one of .jsonl, .json, .csv, .parquet" in problem(tmp_path / "a.xlsx")


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_empty_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"")
    assert "the file is empty; give it at least one row" in problem(path)


def test_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    for path in (
        jsonl(tmp_path, "", "  "),
        tmp_path / "a.json",
        write_csv(tmp_path, "question,answer\n"),
        parquet(tmp_path, *[QA]).with_name("none.parquet"),
    ):
        if path.name == "none.parquet":
            pq.write_table(pa.table({"question": pa.array([], pa.string())}), path)
        assert "holds no rows; give it at least one" in problem(path)
    assert "holds no rows; give it a header line" in problem(write_csv(tmp_path, "\n\n"))


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv"])
def test_not_utf8(tmp_path: Path, suffix: str, mark: bytes) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(mark + b"question\nab\xe9cd\n")
    assert f"line 2: not UTF-8 at byte offset {len(mark) + 11}; save the file as UTF-8" in problem(path)


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    path = jsonl(tmp_path, QA)
    monkeypatch.setattr(Path, "read_bytes", deny)
    assert "cannot be read (Permission denied); check the file" in problem(path)


@pytest.mark.parametrize("text", ['{"question": "x", "answer": "y"}', '"text"', "3"])
def test_json_without_a_list(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    message = problem(tmp_path / "a.json")
    assert "does not hold a list of rows; write [row, row, …], or name the file .jsonl" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[\n{"a": }]', ", line 2: not valid JSON (Expecting value at column 7); write [row"),
        ("[" * 100_000, "not usable JSON"),
        ("[" + "9" * 5000 + "]", "row 1: is a number" if sys.version_info < (3, 10, 7) else "not usable JSON"),
    ],
)
def test_broken_json_file(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.json").write_text(text)
    assert words in problem(tmp_path / "a.json")


@pytest.mark.parametrize("damage", [lambda data: b"no parquet", lambda data: data[: len(data) // 2]])
def test_broken_parquet(tmp_path: Path, damage: Any) -> None:
    path = parquet(tmp_path, QA)
    path.write_bytes(damage(path.read_bytes()))
    message = problem(path)
    assert "not readable as Parquet (" in message
    assert "write the file again" in message


# ------------------------------------------------------------------------------------ errors of a line


@pytest.mark.parametrize("line", ['{"question": ', "{'question': 'x'}", "[1,", '{"a": 1} {"b": 2}'])
def test_broken_json_line(tmp_path: Path, line: str) -> None:
    message = problem(jsonl(tmp_path, QA, "", line))
    assert ", line 3: not valid JSON (" in message
    assert "at column" in message
    assert "each line must hold one whole JSON object" in message


def test_json_line_nested_beyond_reason(tmp_path: Path) -> None:
    assert ", line 1: not usable JSON (" in problem(jsonl(tmp_path, "[" * 100_000))


@pytest.mark.parametrize(
    ("line", "kind"), [("[]", "a list"), ('"x"', "text"), ("3", "a number"), ("null", "null"), ("true", "true")]
)
def test_row_is_not_an_object(tmp_path: Path, line: str, kind: str) -> None:
    assert f", line 2: is {kind}, not an object; write each row as {{" in problem(jsonl(tmp_path, QA, line))


def test_the_first_problem_is_told_and_the_others_counted(tmp_path: Path) -> None:
    assert problem(jsonl(tmp_path, QA, "[]")).endswith("…}")
    assert problem(jsonl(tmp_path, QA, "[]", "{", {"a": 1}, QA)).endswith("(and 3 more rows with problems)")
    message = problem(jsonl(tmp_path, "3", {**QA, "split": "dev"}))
    assert ", line 1: is a number" in message
    assert message.endswith("(and 1 more row with problems)")


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ("c\n", "has 1 field where the header has 2; put quotes around"),
        ("c,d,e\n", "has 3 fields where the header has 2; put quotes around"),
        ('"c"x,d\n', "not valid CSV ("),
        ('"c,d\n', "not valid CSV ("),
    ],
)
def test_broken_csv_record(tmp_path: Path, record: str, words: str) -> None:
    message = problem(write_csv(tmp_path, 'question,answer\n"a\na",b\n' + record))
    assert f", row 2 (line 4): {words}" in message
    assert "quote" in message


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("question,answer,question", "line 1: column 'question' occurs twice; give each column a name of its own"),
        ("question;answer", "line 1: the fields are not separated by commas; save it as CSV with commas"),
        ("question\tanswer", "line 1: the fields are not separated by commas"),
        ('"question,answer', "line 1: not valid CSV ("),
        ("Paris,France", "row 1 (line 2): has the columns 'Paris', 'France'; a row needs"),
    ],
)
def test_csv_header(tmp_path: Path, header: str, words: str) -> None:
    assert words in problem(write_csv(tmp_path, header + "\na,b" + ",c" * (header.count(",") - 1) + "\n"))


# ------------------------------------------------------------------------------------- errors of a row


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"text": "x"}, "has the columns 'text'; a row needs messages, or prompt + completion, or prompt + "),
        ({}, "has the columns none; a row needs messages"),
        ({"promt": "x", "completion": "y"}, "'promt', 'completion' (did you mean 'prompt' for 'promt'?); a row needs"),
        ({"Question": "x", "Answer": "y"}, "(did you mean 'question' for 'Question', 'answer' for 'Answer'?)"),
        ({"prompt": "x", "answer": "y"}, "has the columns 'prompt', 'answer'; a row needs"),
        ({"prompt": "x", "answer": "y", "split": "test"}, "has the columns 'prompt', 'answer', 'split'; a row needs"),
        ({"question": "", "answer": "y"}, "(question empty); a row needs"),
        ({"prompt": " ", "completion": "y"}, "(prompt empty); a row needs"),
    ],
)
def test_wrong_columns(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    message = problem(jsonl(tmp_path, {"question": "other", "answer": "x"}, row))
    assert ", line 2: has the columns" in message
    assert words in message
    assert "question + answer" in message


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"question": "x"}, "fill the column 'answer', or set split to test"),
        ({"question": "x", "answer": " "}, "fill the column 'answer', or set split to test"),
        ({"question": "x", "answer": None, "split": "train"}, "fill the column 'answer'"),
        ({"question": "x", "anwser": "y"}, "fill the column 'answer' (did you mean 'answer' for 'anwser'?), or"),
        ({"prompt": "x", "completion": ""}, "fill the column 'completion', or set split to test"),
        ({"messages": [USER]}, "end messages with an assistant turn, or set split to test"),
        ({"messages": [USER, {"role": "assistant", "content": ""}]}, "end messages with an assistant turn"),
    ],
)
def test_train_row_without_demonstration(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    message = problem(jsonl(tmp_path, row))
    assert ", line 1: has no answer to learn from; " in message
    assert words in message


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"question": 3}, "question is a number; write it as text"),
        ({"question": ["x"]}, "question is a list; write it as text"),
        ({"answer": True}, "answer is true; write it as text"),
        ({"answer": ["x"]}, "answer is a list; write it as text"),
        ({"answer": float("nan")}, "answer is nan, not a finite number"),
        ({"answer": float("inf")}, "answer is inf, not a finite number"),
        ({"system": 1}, "system is a number; write it as text"),
        ({"context": {"a": 1}}, "context is an object; write it as text"),
        ({"group": False}, "group is false; write it as text"),
        ({"id": 1.5}, "id is a number; write it as text"),
        ({"id": True}, "id is true; write it as text"),
        ({"answers": "Paris"}, 'answers is text; write a list of texts, for example ["Paris"]'),
        ({"answers": {"text": ["x"]}}, "answers is an object; write a list of texts"),
        ({"answers": ["x", " "]}, "answers has a blank entry; remove it"),
        ({"answers": ["x", None]}, "answers has a blank entry; remove it"),
        ({"answers": [["x"]]}, "answers is a list; write it as text"),
        ({"split": "dev"}, "unknown split 'dev'; use train, validation (or eval) or test"),
        ({"split": 1}, "unknown split 1; use train, validation"),
        ({"scorer": "exakt"}, "unknown scorer 'exakt'; did you mean 'exact'? use one of exact, choice, contains, "),
        ({"scorer": "zzz"}, "unknown scorer 'zzz'; use one of exact, "),
        ({"scorer": {"name": ["exact"]}}, "unknown scorer a list; use one of exact, "),
        ({"scorer": 3}, 'scorer is a number; write a name, or {"name": …, "params": {…}}'),
        ({"scorer": {"params": {}}}, "scorer is an object; write a name, or"),
        ({"scorer": {"name": "regex", "pattern": "x"}}, "scorer: unknown key 'pattern'; put a scorer's parameters"),
        ({"scorer": {"name": "regex", "params": ["x"]}}, "scorer: params is a list; write an object"),
        ({"scorer": {"name": "number", "params": {"tolerance": float("inf")}}}, "scorer: params hold a number; use"),
        ({"context": "a\0b"}, "context holds a NUL character at position 1; remove it"),
        ({"question": "\ud800x"}, "question holds half a character (lone surrogate U+D800) at position 0; remove it"),
        ({"answer": "é\udfff"}, "answer holds half a character (lone surrogate U+DFFF) at position 1; remove it"),
        ({"id": "\ud800"}, "id holds half a character"),
        ({"answers": ["\0"]}, "answers holds a NUL character"),
        ({"scorer": {"name": "regex", "params": {"pattern": "\0"}}}, "scorer: a params value holds a NUL character"),
        ({"scorer": {"name": "regex", "params": {"\ud800": 1}}}, "scorer: a params key holds half a character"),
    ],
)
def test_wrong_values(tmp_path: Path, cells: dict[str, Any], words: str) -> None:
    message = problem(jsonl(tmp_path, {**QA, **cells}))
    assert f", line 1: {words}" in message
    assert message.encode("utf-8")  # fit for any terminal


def test_scorer_params_nested_beyond_reason(tmp_path: Path) -> None:
    line = '{"question": "q", "answer": "a", "scorer": {"name": "regex", "params": {"x": ' + "[" * 90 + "]" * 90 + "}}}"
    assert "scorer: params are nested too deeply; make them flatter" in problem(jsonl(tmp_path, line))


def test_parquet_values_that_no_column_may_hold(tmp_path: Path) -> None:
    assert ", row 1: answer is a value of type bytes; write it as text" in problem(
        parquet(tmp_path, {"question": "q", "answer": b"bytes"})
    )


OTHER = {"role": "tool", "content": "x"}


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([USER, OTHER], "turn 2 has the role 'tool'; use system, user, assistant"),
        ([{"role": 3, "content": "x"}], "turn 1 has the role 3; use system"),
        ([{"role": ["user"], "content": "x"}], "turn 1 has the role a list; use system"),
        ([{"content": "x"}], "turn 1 is not an object with role and content"),
        (["x"], "turn 1 is not an object with role and content"),
        ([{"role": "user", "content": ["x"]}, ASSISTANT], "content of turn 1 is a list; write it as text"),
        ([{"role": "user", "content": " "}, ASSISTANT], "content of turn 1 is empty; give it text"),
        ([{"role": "system", "content": ""}, USER, ASSISTANT], "content of turn 1 is empty; give it text"),
        ([USER, ASSISTANT, ASSISTANT], "the prompt does not end with a user turn"),
        ([USER, SYSTEM, ASSISTANT], "turn 2 is a system turn; only the first may be"),
        ([SYSTEM, USER, USER, ASSISTANT], "turn 3 is 'user' where 'assistant' is due; user and assistant must take"),
        ([ASSISTANT, USER, ASSISTANT], "turn 1 is 'assistant' where 'user' is due"),
        ([ASSISTANT], "the prompt does not end with a user turn; put one there"),
        ([SYSTEM, ASSISTANT], "the prompt does not end with a user turn; put one there"),
        ([], "messages is an empty list; give it at least a user turn"),
        ("x", "messages is text; write a list of {role, content} turns"),
        ({"role": "user"}, "messages is an object; write a list of {role, content} turns"),
    ],
)
def test_wrong_messages(tmp_path: Path, messages: Any, words: str) -> None:
    message = problem(jsonl(tmp_path, {"messages": messages}))
    assert ", line 1: messages" in message
    assert words in message


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": [USER, ASSISTANT], "completion": "x"}, "prompt: the prompt does not end with a user turn"),
        ({"prompt": [], "completion": "x"}, "prompt is an empty list"),
        ({"prompt": 3, "completion": "x"}, "prompt is a number; write it as text"),
        ({"prompt": "x", "completion": [USER, ASSISTANT]}, "completion must be one assistant turn; move earlier turns"),
        ({"prompt": "x", "completion": [USER]}, "completion must be one assistant turn"),
        ({"prompt": "x", "completion": []}, "completion is an empty list"),
        ({"prompt": "x", "privileged_context": 3}, "privileged_context is a number; write it as text"),
        ({"prompt": "x", "privileged_context": []}, "privileged_context is an empty list"),
        (
            {"prompt": [SYSTEM, USER], "completion": "x", "system": "Other."},
            "has a system column and another system turn",
        ),
    ],
)
def test_wrong_prompts_and_completions(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    assert f", line 1: {words}" in problem(jsonl(tmp_path, row))


def test_duplicate_id(tmp_path: Path) -> None:
    rows = [{**QA, "id": "a"}, {"question": "other", "answer": "x", "id": "a"}]
    assert ", line 2: id 'a' is also that of line 1; give each row an id" in problem(jsonl(tmp_path, *rows))
    rows = [{**QA, "id": "row-2"}, {"question": "other", "answer": "x"}]
    assert ", line 2: id 'row-2' is also that of line 1" in problem(jsonl(tmp_path, *rows))


def test_duplicate_row(tmp_path: Path) -> None:
    copy = {"messages": [{"role": "user", "content": QA["question"]}, {"role": "assistant", "content": QA["answer"]}]}
    message = problem(jsonl(tmp_path, QA, {"prompt": "x", "completion": "y"}, copy))
    assert ", line 3: has the same prompt and demonstration as line 1; remove one of the two" in message
    message = problem(write_csv(tmp_path, "question,answer\na,b\nc,d\na,b\n"))
    assert ", row 3 (line 4): has the same prompt and demonstration as row 1 (line 2)" in message


def test_nul_byte_in_csv(tmp_path: Path) -> None:
    assert ", line 2: holds a NUL byte; remove it" in problem(write_csv(tmp_path, "question,answer\na\0,b\n"))


def test_nul_byte_in_jsonl(tmp_path: Path) -> None:
    assert ", line 1: not valid JSON (Invalid control character" in problem(
        jsonl(tmp_path, '{"question": "a\0", "answer": "b"}')
    )


def test_messages_do_not_fit_into_csv(tmp_path: Path) -> None:
    assert "messages is text; write a list" in problem(write_csv(tmp_path, 'messages,id\n"[]",1\n'))


# ------------------------------------------------------------------------------------------ data_hash


def test_data_hash_does_not_depend_on_the_file_format(tmp_path: Path) -> None:
    scorer = {"name": "number", "params": {"tolerance": 1}}
    row = {"id": "a", "question": "é?", "answer": "1", "answers": ["1", "2"], "scorer": scorer}
    hashes = {
        data_hash(load_examples(jsonl(tmp_path, row))),
        data_hash(load_examples(jsonl(tmp_path, {**row, "scorer": {"name": "number", "params": {"tolerance": 1.0}}}))),
        data_hash(load_examples(parquet(tmp_path, row))),
        data_hash(
            load_examples(
                write_csv(tmp_path, "id,question,answer,answers\na,é?,1,1|2\n"),
                scorer=Scorer("number", {"tolerance": 1}),
            )
        ),
    }
    assert len(hashes) == 1


def test_data_hash_is_fixed_by_what_it_hashes() -> None:
    # A changed value here means that every stored hash of a data set becomes invalid: a breaking change.
    assert data_hash([]) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert data_hash([Example("a", user("q"), "d")]) == GOLDEN


GOLDEN = "61e035bdbbcf078e21000135516c4691e94bb3e51cdbc5be61e4bae418a74951"


@pytest.mark.parametrize(
    "other",
    [
        Example("b", user("q"), "d"),
        Example("a", user("r"), "d"),
        Example("a", (Message("system", "s"), *user("q")), "d"),
        Example("a", user("q"), "e"),
        Example("a", user("q"), "d", context="c"),
        Example("a", user("q"), "d", answers=("x",)),
        Example("a", user("q"), "d", scorer=Scorer("exact")),
        Example("a", user("q"), "d", group="g"),
        Example("a", user("q"), "d", split="test"),
    ],
)
def test_data_hash_sees_every_field(other: Example) -> None:
    assert data_hash([other]) != data_hash([Example("a", user("q"), "d")])


def test_data_hash_sees_order() -> None:
    a, b = Example("a", user("q"), "d"), Example("b", user("r"), "d")
    assert data_hash([a, b]) != data_hash([b, a])


@pytest.mark.parametrize(("column", "meant"), [("splitt", "split"), ("contexts", "context"), ("Answers ", "answers")])
def test_a_misspelt_optional_column_is_not_passed_over(tmp_path: Path, column: str, meant: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({"question": "Q?", "answer": "A.", column: "test"}) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=f"line 1: has an unknown column .*; did you mean {meant}"):
        load_examples(path)


def test_other_columns_are_nobodys_business(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"question": "Q?", "answer": "A.", "source": "x", "difficulty": 3}\n', encoding="utf-8")
    assert [example.question for example in load_examples(path)] == ["Q?"]
