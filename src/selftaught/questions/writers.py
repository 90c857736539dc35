"""Who writes questions and answers them: a model on this machine, or one behind an OpenAI-compatible address."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from selftaught.addresses import KEY_VARIABLES, api_key, divided, is_address
from selftaught.errors import ConfigError, TrainingError
from selftaught.models.fast_decoder import make_decoder
from selftaught.models.load import LanguageModel, load_model
from selftaught.models.prefill import PrefixStore
from selftaught.models.resolve import resolve_model
from selftaught.prompts import render
from selftaught.rollout.sampler import Sampling
from selftaught.rollout.torch_sampler import sample
from selftaught.types import Message

AT_ONCE = 8  # requests to an address
PATIENCE = 120  # seconds for a request
TRIES = 3
PREFIX_BYTES = 256 << 20  # of prompts that share a document

Conversation = Sequence[Message]


class Writer(Protocol):
    """Goes on with conversations."""

    @property
    def name(self) -> str:
        """Who writes, for the record."""
        ...

    def write(
        self, asked: Sequence[Conversation], starts: Sequence[str], max_new_tokens: int, temperature: float, seed: int
    ) -> list[str]:
        """What the assistant says to each conversation, beginning with its start (which may be empty).

        Args:
            asked: conversations that end with a user's turn.
            starts: what each answer begins with; it is part of what comes back.
            max_new_tokens: longest answer, its start apart.
            temperature: 0 always gives the likeliest.
            seed: of what is drawn.
        """
        ...


class LocalWriter:
    """A model on this machine. Conversations that begin with the same document share its computation."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self._store = PrefixStore(make_decoder(model), PREFIX_BYTES)

    @property
    def name(self) -> str:
        """The model's path."""
        return str(self.model.path)

    def write(
        self, asked: Sequence[Conversation], starts: Sequence[str], max_new_tokens: int, temperature: float, seed: int
    ) -> list[str]:
        """See `Writer`."""
        tokenizer = self.model.tokenizer
        prompts, begins = [], []
        for conversation, start in zip(asked, starts, strict=True):
            begun = tokenizer(start, add_special_tokens=False)["input_ids"] if start else []
            begins.append(begun)
            prompts.append([*render(tuple(conversation), tokenizer), *begun])
            if len(prompts[-1]) + max_new_tokens > self.model.max_tokens:
                raise ConfigError(
                    f"a prompt of {len(prompts[-1])} tokens does not fit the {self.model.max_tokens} of {self.name}; "
                    "take a model with a longer context"
                )
        seeds = [seed + number for number in range(len(prompts))]
        drawn = sample(self._store.prompts(prompts), Sampling(max_new_tokens, temperature), seeds)
        tokens = [[*begun, *completion.ids] for begun, completion in zip(begins, drawn, strict=True)]
        return [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in tokens]


class AddressWriter:
    """A model behind an OpenAI-compatible address.

    Args:
        address: such as "http://localhost:8000/v1".
        model: its name there.

    Raises:
        TrainingError: a request fails, also when it is made again.
    """

    def __init__(self, address: str, model: str) -> None:
        from huggingface_hub import InferenceClient

        self.name = f"{address}#{model}"
        self._model = model
        self._client = InferenceClient(base_url=address, api_key=api_key() or "none", timeout=PATIENCE)

    def write(
        self, asked: Sequence[Conversation], starts: Sequence[str], max_new_tokens: int, temperature: float, seed: int
    ) -> list[str]:
        """See `Writer`; it is asked to begin so, and what does not is left as it is."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            numbers = range(len(asked))
            return list(
                pool.map(lambda n: self._one(asked[n], starts[n], max_new_tokens, temperature, seed + n), numbers)
            )

    def _one(self, conversation: Conversation, start: str, max_new_tokens: int, temperature: float, seed: int) -> str:
        turns = [{"role": turn.role, "content": turn.content} for turn in conversation]
        if start:
            turns[-1]["content"] += f'\n\nReply with one line that begins with "{start}", and nothing else.'
        problem: Exception | None = None
        for _ in range(TRIES):
            try:
                reply: Any = self._client.chat_completion(
                    turns, model=self._model, max_tokens=max_new_tokens, temperature=temperature, seed=seed
                )
                return (reply.choices[0].message.content or "").strip()
            except Exception as error:  # the client and the network raise errors of their own
                problem = error
        why = " ".join(str(problem).split())[:200]
        raise TrainingError(
            f"{self.name}: does not answer ({why}); check the address and the key ({KEY_VARIABLES[0]}), and go on"
        ) from problem


def check_generator(generator: str) -> None:
    """Says what is wrong with a name of a writer, before anything slow starts.

    Raises:
        ConfigError: an address names no model.
        ModelError: there is no such model.
    """
    if is_address(generator):
        divided(generator, "--generator")
    elif generator not in ("self", "none"):
        resolve_model(generator)


def open_writer(generator: str, learner: LanguageModel) -> Writer:
    """Who writes the questions.

    Args:
        generator: "self" (or "none", where nothing is asked) for the model that is taught; a model's name or folder; or
            an address and a model's name there: "http://localhost:8000/v1#name".
        learner: the model that is taught.

    Raises:
        ConfigError: the address names no model.
        ModelError: there is no such model.
    """
    check_generator(generator)
    if generator in ("self", "none"):
        return LocalWriter(learner)
    if is_address(generator):
        return AddressWriter(*divided(generator, "--generator"))
    return LocalWriter(load_model(generator))
