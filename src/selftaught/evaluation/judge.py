"""How well an answer about a document is, by a language model: where rules cannot tell, and to compare it with them.

The judge says CORRECT, PARTLY or WRONG of each answer: strictly right is what is correct, leniently also what is partly
so. What it said is kept in a file, and not asked again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

from selftaught.addresses import KEY_VARIABLES, api_key, divided
from selftaught.errors import GO_ON, ConfigError
from selftaught.evaluation.chat import chat_reply
from selftaught.types import Example, Message

JUDGED_FILE = "judged.jsonl"
FREE_GROUPS = ("telling", "unstated")
AT_ONCE = 8  # requests
GRADES = {"CORRECT": (True, True), "PARTLY": (False, True), "WRONG": (False, False)}  # strict, lenient
INSTRUCTION = """You grade an answer to a question. Compare it with the reference. Length, style and choice of words \
do not count.

CORRECT: it says what the reference says, and nothing that is false{by_text}.
PARTLY: it says some of what the reference says, and nothing that is false{by_text}.
WRONG: it misses the point, contradicts the reference, or says something false{by_text}.
If the reference says that something is not known or not stated, only an answer that says so is CORRECT, and any other \
is WRONG.

{text}Question:
{question}

Reference:
{reference}

Answer:
{completion}

Reply with one word: CORRECT, PARTLY or WRONG."""
SAMPLE = Example("sample", (Message("user", "How much is two and two?"),), "Four.")

Grade = tuple[bool, bool]


def is_free_text(example: Example) -> bool:
    """Whether rules cannot tell what is right: it is told of something, or there is neither an answer nor a scorer."""
    return example.group in FREE_GROUPS or not (example.answers or example.scorer)


def has_reference(example: Example) -> bool:
    """Whether there is an answer that a judge can compare with; a neighbour's only says what must not be said."""
    return example.group != "neighbour" and bool(example.answers or example.demonstration)


class Judge:
    """A language model behind an address.

    Args:
        address: such as "http://localhost:8000/v1#MODEL".
        record: the file that keeps what it says; read if there is one.

    Raises:
        ConfigError: the address is none, or names no model.
    """

    def __init__(self, address: str, record: Path) -> None:
        self.name = address
        self._url, self._model = divided(address, "--judge")
        self._record = record
        self._said = _read(record)

    def check(self) -> None:
        """Asks something simple, before anything slow starts; nothing, where it has judged before.

        Raises:
            ConfigError: it does not answer, or not as it was asked to.
        """
        if self._said:
            return
        reply = self._ask(_prompt("Four.", SAMPLE))
        if verdict_of(reply) is None:
            said = " ".join(reply.split())[:60]
            raise ConfigError(f"{self.name}: said {said!r}, not CORRECT, PARTLY or WRONG; name another --judge")

    def grades(
        self, items: Sequence[tuple[str, Example]], watch: Callable[[int, int], None] = lambda done, total: None
    ) -> list[Grade | None]:
        """Strictly and leniently right or not, for each answer; None where no verdict can be read.

        Args:
            items: completions, each with what was asked (see `has_reference`).
            watch: told how many are judged, of how many.

        Raises:
            ConfigError: it does not answer; what it said before is kept.
        """
        prompts = [_prompt(completion, example) for completion, example in items]
        keys = [self._key(prompt) for prompt in prompts]
        blank = {key for key, (completion, _) in zip(keys, items, strict=True) if not completion.strip()}
        waiting = {
            key: (prompt, item)
            for key, prompt, item in zip(keys, prompts, items, strict=True)
            if key not in self._said and key not in blank
        }
        self._ask_all(waiting, watch)
        verdicts = ["WRONG" if key in blank else self._said.get(key) for key in keys]
        return [None if verdict is None else GRADES[verdict] for verdict in verdicts]

    def _ask_all(
        self, waiting: Mapping[str, tuple[str, tuple[str, Example]]], watch: Callable[[int, int], None]
    ) -> None:
        """Asks for verdicts and keeps each as soon as it is there.

        Args:
            waiting: prompts, each with its completion and example, by their keys.
            watch: told how many are judged, of how many.

        Raises:
            ConfigError: the judge does not answer; all that it did answer is kept.
        """
        self._record.parent.mkdir(parents=True, exist_ok=True)
        problem: BaseException | None = None
        with ThreadPoolExecutor(AT_ONCE) as pool, self._record.open("a", encoding="utf-8") as file:
            file.write("\n" * (file.tell() > 0 and bool(waiting)))  # what was written last may be torn
            asked = {pool.submit(self._ask, prompt): (key, item) for key, (prompt, item) in waiting.items()}
            try:
                for done, future in enumerate(as_completed(asked), start=1):
                    if future.cancelled():
                        continue
                    if error := future.exception():
                        problem = problem or error
                        _cancel(asked)  # what is on its way is still kept
                    elif verdict := verdict_of(future.result()):
                        key, (completion, example) = asked[future]
                        self._said[key] = verdict
                        line = {"id": example.id, "completion": completion, "verdict": verdict, "key": key}
                        file.write(json.dumps(line, ensure_ascii=False) + "\n")
                        file.flush()
                    watch(done, len(asked))
            finally:
                _cancel(asked)
        if problem is not None:
            raise problem

    def _ask(self, prompt: str) -> str:
        hint = f"check --judge and the key ({KEY_VARIABLES[0]}); {GO_ON}"
        return chat_reply(self._url, self._model, api_key(), prompt, hint)

    def _key(self, prompt: str) -> str:
        return hashlib.sha256(json.dumps([self.name, prompt]).encode()).hexdigest()[:32]


def _cancel(asked: Iterable[Future[str]]) -> None:
    """Requests that have not begun never will. (An executor that is shut down would not tell who waits for them.)"""
    for future in asked:
        future.cancel()


def verdict_of(reply: str) -> str | None:
    """The word that a reply comes to, whatever was thought aloud before it."""
    said = set(re.findall(r"[A-Z]+", reply.rpartition("</think>")[2].upper()))
    if said & {"PARTLY", "PARTIALLY"}:
        return "PARTLY"
    if said & {"WRONG", "INCORRECT"} or {"NOT", "CORRECT"} <= said:
        return "WRONG"
    return "CORRECT" if "CORRECT" in said else None


def _prompt(completion: str, example: Example) -> str:
    """What the judge is asked."""
    texts = {
        "by_text": " by the text" if example.context else "",
        "text": f"Text:\n{example.context}\n\n" if example.context else "",
        "question": example.question,
        "reference": example.answers[0] if example.answers else example.demonstration or "",
        "completion": completion,
    }
    # In one pass: braces in the texts are theirs.
    return re.sub(r"\{(by_text|text|question|reference|completion)\}", lambda name: texts[name[1]], INSTRUCTION)


def _read(record: Path) -> dict[str, str]:
    """What was said before. The last line may be torn."""
    said = {}
    for line in record.read_text(encoding="utf-8", errors="replace").splitlines() if record.is_file() else []:
        try:
            value = json.loads(line)
            if value["verdict"] in GRADES:
                said[value["key"]] = value["verdict"]
        except (ValueError, LookupError, TypeError):
            continue
    return said
