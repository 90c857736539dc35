"""The nouns of what is kept from use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from selftaught.types import Message

Kind = Literal["up", "down", "correction", "text", "follow_up"]
State = Literal["pending", "approved", "rejected", "learned"]
KINDS: tuple[Kind, ...] = ("up", "down", "correction", "text", "follow_up")
STATES: tuple[State, ...] = ("pending", "approved", "rejected", "learned")
THUMBS: tuple[Kind, ...] = ("up", "down")


@dataclass(frozen=True)
class Interaction:
    """One kept completion.

    Attributes:
        id: the completion's.
        created: when (UTC, ISO 8601).
        key: id of the API key that asked, never the key itself; "local" where there are no keys.
        version: that answered: "v3".
        messages: the prompt.
        completion: the answer.
        expires: when it is to be forgotten (UTC, ISO 8601); None keeps it until it is purged.
    """

    id: str
    created: str
    key: str
    version: str
    messages: tuple[Message, ...]
    completion: str
    expires: str | None = None


@dataclass(frozen=True)
class Feedback:
    """What somebody said of a completion.

    Attributes:
        id: a number, in the order of time.
        created: when (UTC, ISO 8601).
        interaction: id of the interaction.
        key: whose feedback it is.
        kind: "up" and "down" are thumbs; a "correction" is a better answer; "text" is free text; a "follow_up" is the
            user's next message in the conversation.
        text: "" for thumbs.
        state: "pending" until a person approves or rejects it; "learned" once a lesson was made of it.
    """

    id: int
    created: str
    interaction: str
    key: str
    kind: Kind
    text: str
    state: State
