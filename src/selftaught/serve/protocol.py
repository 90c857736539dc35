"""What requests may say, as OpenAI's interface has it. Fields that we do not know are left alone, as there."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StringConstraints

MAX_CHOICES, MAX_SCORES, MAX_STOPS = 8, 20, 16
MAX_COMPLETIONS = 64  # of all of a request's prompts
MAX_PROMPT_SCORES = 1 << 19  # told of a request's prompts: some hundred bytes of memory each
Stop = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class Asked(BaseModel):
    """A request's body."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, regex_engine="python-re")


class TextPart(Asked):
    """A part of a message; only text is taken."""

    type: Literal["text"]
    text: str


class Turn(Asked):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    @property
    def text(self) -> str:
        """All of it."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(Asked):
    """How a stream ends."""

    include_usage: bool = False


class Drawing(Asked):
    """What both kinds of completion share."""

    model: str = Field("HEAD", max_length=200, description="A version (v2), or HEAD.")
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def stops(self) -> list[str]:
        """Stop strings."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())


class ChatAsked(Drawing):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Turn], Field(min_length=1, max_length=1000)]
    max_tokens: int | None = Field(None, ge=1, lt=2**31)
    max_completion_tokens: int | None = Field(None, ge=1, lt=2**31)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_SCORES)


class TextAsked(Drawing):
    """POST /v1/completions."""

    prompt: str | list[str] | list[StrictInt] | list[list[StrictInt]] = Field(
        description=f"One or several, as text or as token ids; times n, up to {MAX_COMPLETIONS}."
    )
    max_tokens: int | None = Field(None, ge=0, lt=2**31, description="0 needs echo.")
    logprobs: int | None = Field(None, ge=0, le=MAX_SCORES)
    echo: bool | None = Field(None, description="Begin with the prompt, its tokens scored too; not in a stream.")

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """One or several, as they were said."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        is_one = bool(self.prompt) and isinstance(self.prompt[0], int)
        return [self.prompt] if is_one else self.prompt  # type: ignore[return-value]


class FeedbackAsked(Asked):
    """POST /v1/feedback."""

    completion_id: str = Field(min_length=1, max_length=200)
    kind: Literal["up", "down", "correction", "text"]
    text: str = Field("", max_length=20_000, description="The right answer (correction), or a remark (text).")


def error_body(message: str, kind: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """An error in OpenAI's form."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
