"""What the student is asked, and what the teacher is shown.

The student sees the row's prompt. The teacher sees the same conversation with its last user turn
rewritten by a template to hold the demonstration (and the document, where the row has one), or what a user said to
an earlier answer. A template may itself be several turns: a line `[assistant]` or `[user]` begins the next one.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Protocol

from selftaught.config import PromptConfig
from selftaught.errors import ConfigError, DataError
from selftaught.types import Example, Message

FIELDS = ("context", "demonstration", "question", "said", "feedback")
TURN = re.compile(r"\n\[(user|assistant)\]\n")


class ChatTokenizer(Protocol):
    """The part of a transformers tokenizer that prompts need."""

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any: ...


def teacher_messages(example: Example, config: PromptConfig) -> tuple[Message, ...]:
    """The conversation the teacher sees: the row's, with a filled template instead of its last user turn.

    A row with feedback is shown that alone; a row without a demonstration is shown its document alone; a row with
    nothing of these is left as it is.

    Raises:
        ConfigError: the template does not ask the question, or its turns do not alternate.
    """
    if example.feedback:
        template = config.feedback
    elif example.demonstration and example.context:
        template = config.knowledge
    elif example.demonstration:
        template = config.skill
    elif example.context:
        template = config.document
    else:
        return example.prompt
    return (*example.prompt[:-1], *_turns(template, example))


def with_document(example: Example, config: PromptConfig) -> Example:
    """The example with its document in the prompt, where it has one: what retrieval would show, were it perfect."""
    if not example.context:
        return example
    return replace(example, prompt=(*example.prompt[:-1], *_turns(config.document, example)))


def _turns(template: str, example: Example) -> tuple[Message, ...]:
    """A filled template's turns. It is cut before it is filled: no text of a row can begin a turn."""
    if "{question}" not in template:
        raise ConfigError(f"prompt template {template[:40]!r}…: it must hold {{question}}")
    first, *rest = TURN.split(template)
    turns = [Message("user", fill(first, example))]
    for role, text in zip(rest[::2], rest[1::2], strict=True):
        turns.append(Message("user" if role == "user" else "assistant", fill(text, example)))
    if [turn.role for turn in turns] != ["user", "assistant"] * (len(turns) // 2) + ["user"]:
        raise ConfigError(
            f"prompt template {template[:40]!r}…: user and assistant must take turns, and the user ends it"
        )
    return tuple(turns)


def fill(template: str, example: Example) -> str:
    """Puts a row's texts into a template.

    Only the names in `FIELDS` are replaced, in one pass, so braces in the texts or elsewhere in the
    template (JSON, code) stay as they are.
    """
    values = {
        "context": example.context or "",
        "demonstration": example.demonstration or "",
        "question": example.question,
        "said": example.said or "",
        "feedback": example.feedback or "",
    }
    return re.sub("{(" + "|".join(FIELDS) + ")}", lambda field: values[field[1]], template)


def render(messages: tuple[Message, ...], tokenizer: ChatTokenizer) -> list[int]:
    """Token ids of a conversation, up to where the assistant's answer begins.

    The chat template adds its own special tokens: they are never added twice.
    """
    turns = [{"role": message.role, "content": message.content} for message in messages]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]  # type: ignore[operator]
    return ids


def student_prompt(example: Example, tokenizer: ChatTokenizer) -> list[int]:
    """Token ids of what the student sees."""
    return render(example.prompt, tokenizer)


def teacher_prompt(
    example: Example, tokenizer: ChatTokenizer, config: PromptConfig, limit: int | None = None
) -> list[int]:
    """Token ids of what the teacher sees, never truncated.

    Raises:
        DataError: it is longer than `config.max_teacher_tokens` or the model's own `limit`.
    """
    ids = render(teacher_messages(example, config), tokenizer)
    bound = min(config.max_teacher_tokens, limit) if limit is not None else config.max_teacher_tokens
    if len(ids) > bound:
        raise DataError(
            f"row {example.id!r}: its teacher prompt has {len(ids)} tokens and at most {bound} fit; "
            "shorten its context, or raise prompts.max_teacher_tokens if the model can take more"
        )
    return ids
