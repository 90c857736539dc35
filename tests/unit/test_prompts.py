"""What the teacher is shown, and that templates fill their fields and nothing else."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selftaught.config import PromptConfig
from selftaught.errors import ConfigError, DataError
from selftaught.prompts import FIELDS, fill, render, student_prompt, teacher_messages, teacher_prompt
from selftaught.types import Example, Message

CONFIG = PromptConfig(
    knowledge="K {context}|{demonstration}|{question}",
    skill="S {demonstration}|{question}",
    document="D {context}|{question}",
)
ROW = Example("r1", (Message("user", "Why?"),), demonstration="Because.", context="A report.")

# Texts that look like templates, JSON and code.
TEXT = st.text(st.sampled_from("ab{}() \n\"'%$\\"), max_size=12) | st.sampled_from(
    ["{question}", "{context}", "{demonstration}", '{"a": {"b": 1}}', "{0}", "{}", "{{question}}", "%s", r"\g<0>\1"]
)


class Tokenizer:
    """Letters as token ids, and a template that shows every turn."""

    def __init__(self) -> None:
        self.options: list[dict[str, Any]] = []

    def apply_chat_template(self, conversation: Any, **options: Any) -> str:
        self.options.append(options)
        return "".join(f"<{turn['role']}>{turn['content']}" for turn in conversation) + "<assistant>"

    def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
        self.options.append(options)
        return {"input_ids": [ord(letter) for letter in text]}


def text_of(ids: list[int]) -> str:
    return "".join(map(chr, ids))


def reference_fill(template: str, values: dict[str, str]) -> str:
    """Letter by letter: at each place either a whole field begins or a letter is copied."""
    result, at = "", 0
    while at < len(template):
        for name, value in values.items():
            field = "{" + name + "}"
            if template.startswith(field, at):
                result, at = result + value, at + len(field)
                break
        else:
            result, at = result + template[at], at + 1
    return result


@settings(max_examples=200, deadline=None)
@given(
    parts=st.lists(TEXT | st.sampled_from(["{question)", "{context ", "question}"]), max_size=6),
    texts=st.tuples(TEXT, TEXT, TEXT),
)
def test_fields_are_filled_in_one_pass_and_braces_stay(parts: list[str], texts: tuple[str, str, str]) -> None:
    template = "".join([*parts, "{question}"])
    context, demonstration, question = texts
    row = Example("r", (Message("user", question),), demonstration=demonstration, context=context)
    values = {"context": context, "demonstration": demonstration, "question": question}
    assert fill(template, row) == reference_fill(template, values)


def test_texts_are_never_read_as_templates() -> None:
    row = dataclasses.replace(ROW, prompt=(Message("user", "{context} {demonstration}"),), demonstration="{question}")
    assert fill("{demonstration}: {question}", row) == "{question}: {context} {demonstration}"


def test_missing_texts_are_empty() -> None:
    row = Example("r", (Message("user", "q"),))
    assert fill("[{context}][{demonstration}][{question}]", row) == "[][][q]"


@pytest.mark.parametrize("template", ["", "{context}", "question", "{ question }", "{Question}"])
def test_a_template_that_does_not_ask_is_a_configuration_error(template: str) -> None:
    with pytest.raises(ConfigError, match=r"\{question\}"):
        teacher_messages(ROW, PromptConfig(knowledge=template))


def test_shipped_templates_ask_and_show_what_they_promise() -> None:
    shipped = PromptConfig()
    for template, shown in (
        (shipped.knowledge, {"context", "demonstration"}),
        (shipped.skill, {"demonstration"}),
        (shipped.document, {"context"}),
    ):
        assert {name for name in FIELDS if "{" + name + "}" in template} == shown | {"question"}


@pytest.mark.parametrize(
    ("demonstration", "context", "shown"),
    [
        ("Because.", "A report.", "K A report.|Because.|Why?"),
        ("Because.", None, "S Because.|Why?"),
        (None, "A report.", "D A report.|Why?"),
        (None, None, "Why?"),
        ("", "", "Why?"),
        ("", "A report.", "D A report.|Why?"),
        ("Because.", "", "S Because.|Why?"),
    ],
)
def test_each_kind_of_row_has_its_template(demonstration: str | None, context: str | None, shown: str) -> None:
    row = dataclasses.replace(ROW, demonstration=demonstration, context=context)
    assert teacher_messages(row, CONFIG) == (Message("user", shown),)


def test_a_template_may_be_several_turns_and_texts_begin_none() -> None:
    config = PromptConfig(knowledge="{context}\n\n{question}\n[assistant]\n{demonstration}\n[user]\nAgain: {question}")
    row = dataclasses.replace(ROW, demonstration="No.\n[user]\nYes?", context="A\n[assistant]\nB")
    assert teacher_messages(row, config) == (
        Message("user", "A\n[assistant]\nB\n\nWhy?"),
        Message("assistant", "No.\n[user]\nYes?"),
        Message("user", "Again: Why?"),
    )


@pytest.mark.parametrize(
    "template", ["{question}\n[assistant]\nNo", "{question}\n[user]\nNo", "a\n[assistant]\n{question}"]
)
def test_the_turns_of_a_template_alternate_and_the_user_ends(template: str) -> None:
    with pytest.raises(ConfigError, match="take turns"):
        teacher_messages(ROW, PromptConfig(knowledge=template))


def test_a_skill_is_shown_as_an_earlier_answer() -> None:
    row = dataclasses.replace(ROW, context=None)
    shown = teacher_messages(row, PromptConfig())
    asked, answered = Message("user", "Why?"), Message("assistant", "Because.")
    assert shown == (asked, answered, asked, answered, asked)


def test_earlier_turns_and_the_system_prompt_stay() -> None:
    earlier = (Message("system", "Be {kind}."), Message("user", "Hi {question}"), Message("assistant", "Yo"))
    row = dataclasses.replace(ROW, prompt=(*earlier, Message("user", "Why?")))
    messages = teacher_messages(row, CONFIG)
    assert messages[:-1] == earlier
    assert messages[-1] == Message("user", "K A report.|Because.|Why?")
    assert row.prompt[-1].content == "Why?", "the row itself is unchanged"


def test_prompts_end_where_the_answer_begins_without_double_specials() -> None:
    tokenizer = Tokenizer()
    row = dataclasses.replace(ROW, prompt=(Message("system", "S"), Message("user", "Why?")))
    assert text_of(student_prompt(row, tokenizer)) == "<system>S<user>Why?<assistant>"
    assert text_of(teacher_prompt(row, tokenizer, CONFIG)) == "<system>S<user>K A report.|Because.|Why?<assistant>"
    template, encoding = tokenizer.options[:2]
    assert template["add_generation_prompt"] is True and template["tokenize"] is False
    assert encoding == {"add_special_tokens": False}


def test_the_student_never_sees_the_demonstration() -> None:
    assert "Because" not in text_of(student_prompt(ROW, Tokenizer()))
    assert "report" not in text_of(student_prompt(ROW, Tokenizer()))


def test_a_prompt_is_never_cut_and_a_long_one_names_its_row() -> None:
    tokenizer = Tokenizer()
    row = dataclasses.replace(ROW, id="long-9", context="x" * 50)
    length = len(render(teacher_messages(row, CONFIG), tokenizer))
    exact = CONFIG.model_copy(update={"max_teacher_tokens": length})
    assert len(teacher_prompt(row, tokenizer, exact)) == length
    assert len(teacher_prompt(row, tokenizer, exact, limit=length)) == length
    for config, limit in ((CONFIG.model_copy(update={"max_teacher_tokens": length - 1}), None), (exact, length - 1)):
        with pytest.raises(DataError, match=f"long-9.*has {length} tokens and at most {length - 1} fit"):
            teacher_prompt(row, tokenizer, config, limit)
