"""The paper's three skills, as examples: science questions, tool use, medicine.

Each is read from where it is published, or from files in the same form. The form of a row says what it is: rows
with a demonstration are taught, rows with an answer alone are the test. SciKnowEval, which has no split and no
demonstrations, is split by the hash of each question: 75% are taught, 5% validate, 20% are the test.

skill    rows (columns)                                                            where
=======  ========================================================================  ===========================
science  messages + output_text; prompt + answer                                   the authors' release
         question + choices + answerKey, of domain Chemistry and level L3          SciKnowEval
tools    prompt + golden_answer, and golden_response where taught                  the authors' release
         NLDocumentation + Instances, or Instructions + Golden_Answers             ToolAlpaca
medical  Question + Response; Open-ended Verifiable Question + Ground-True Answer  HuatuoGPT-o1
=======  ========================================================================  ===========================
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from selftaught.data.formats import HUB_ID, READERS, Row
from selftaught.data.packages import cache_folder
from selftaught.data.validate import example_of
from selftaught.errors import DataError
from selftaught.types import Example, Scorer, Split

PaperSkill = Literal["science", "tools", "medical"]
PREFIX = "paper:"

# Both splits as the authors cut them, at the commit that added them.
RELEASE = "https://raw.githubusercontent.com/idanshen/Self-Distillation/0570f07ed34f568e2662a8d5caa4624364bff62c/data"
SOURCES: Mapping[str, tuple[str, ...]] = {
    "science": tuple(f"{RELEASE}/science_data/{split}_data/data-00000-of-00001.arrow" for split in ("train", "eval")),
    "tools": tuple(f"{RELEASE}/tooluse_data/{split}_data/data-00000-of-00001.arrow" for split in ("train", "eval")),
    "medical": (
        "FreedomIntelligence/medical-o1-reasoning-SFT:en",
        "FreedomIntelligence/medical-o1-verifiable-problem",
    ),
}
FILE_NAMES = ("train", "eval", "test", "sciknoweval", "medical_o1")  # how files of these data sets begin
MEDICAL_TESTS = 1000
SECONDS = 120  # without a byte from a server
GROUPS: Mapping[Split, str] = {"train": "taught", "validation": "validation", "test": "test"}

Cells = Mapping[str, Any]


def load_paper(name: PaperSkill, source: str | Path | None = None) -> list[Example]:
    """Reads one of the paper's skills.

    Args:
        name: "science", "tools" or "medical".
        source: a .json, .jsonl or .parquet file; a folder of such files, or of data sets as `datasets` saves
            them; a hub data set, "owner/name" or "owner/name:configuration". None is where it is published.

    Returns:
        Rows of the groups "taught", "validation" and "test", each once; no test question is taught. The same rows
        have the same ids and splits in whatever order they come.

    Raises:
        DataError: the source cannot be read, or has a row in none of the forms.
    """
    if name not in READ:
        raise DataError(f"{PREFIX}{name}: no skill of the paper; use one of {', '.join(PREFIX + one for one in READ)}")
    sources = SOURCES[name] if source is None else (source,)
    examples: dict[str, Example] = {}
    for row in chain.from_iterable(map(_rows, sources)):
        try:
            for cells in READ[name](_mapping(row.cells)):
                example = _example(name, cells)
                examples.setdefault(example.id, example)
        except (DataError, LookupError, TypeError, ValueError, AttributeError) as error:
            reason = str(error) if isinstance(error, DataError) else f"not in the form of this data set ({error!r})"
            raise DataError(f"{PREFIX}{name}, {row.place}: {reason}") from error
    return _apart(name, list(examples.values()))


def load_named(text: str) -> list[Example]:
    """Reads "paper:science" or "paper:science=SOURCE".

    Raises:
        DataError: as `load_paper`.
    """
    name, equals, source = text.removeprefix(PREFIX).partition("=")
    if equals and not source:
        raise DataError(f"{text}: names no source after the =; leave the = out to read what is published")
    return load_paper(name, source or None)  # type: ignore[arg-type]  # it checks the name


def _example(name: str, cells: Cells) -> Example:
    """A row of our own format, with an id that only its content decides."""
    content = json.dumps(cells, sort_keys=True, ensure_ascii=False)
    number = int(_digest(content)[:12], 16)
    group = GROUPS[cells["split"]]
    return example_of({**cells, "id": f"{name}-{number:012x}", "group": group}, number, scorer=SCORERS[name])


def _apart(name: str, examples: list[Example]) -> list[Example]:
    """The test kept apart: no question of it is taught, and of medicine's it is the first 1,000 by hash."""
    if name == "medical":
        taught = {_plain(example.question) for example in examples if example.split == "train"}
        fresh = [row for row in examples if row.split == "test" and _plain(row.question) not in taught]
        kept = {row.id for row in sorted(fresh, key=lambda row: _digest(row.id))[:MEDICAL_TESTS]}
        examples = [row for row in examples if row.split == "train" or row.id in kept]
    asked = {_plain(row.question) for row in examples if row.split != "train"}
    examples = [row for row in examples if row.split != "train" or _plain(row.question) not in asked]
    if not examples:
        raise DataError(f"{PREFIX}{name}: the source holds no rows of this skill; check what it is")
    return examples


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


# ------------------------------------------------------------------------------------------ science

SCIENCE_SYSTEM = (
    "Choose the one right option of the four. Think first, then answer, in this form:\n"
    "<reasoning>\nyour reasoning\n</reasoning>\n<answer>\nthe letter of the option, alone\n</answer>"
)


def _science(cells: Cells) -> Iterator[Cells]:
    if "answerKey" in cells:
        yield from _sciknoweval(cells)
    elif "output_text" in cells:
        answer = {"role": "assistant", "content": cells["output_text"]}
        yield {"messages": [*cells["messages"], answer], "split": "train"}
    elif "prompt" in cells and "answer" in cells:
        yield {"prompt": list(cells["prompt"]), "answers": [cells["answer"]], "split": "test"}
    else:
        raise _unknown(cells)


def _sciknoweval(cells: Cells) -> Iterator[Cells]:
    """A question with options of chemistry's level 3; others give nothing."""
    level, letter = cells["details"]["level"], str(cells["answerKey"]).strip()
    options = cells["choices"] or {"label": (), "text": ()}  # questions of other types have none
    if cells["domain"] != "Chemistry" or level != "L3" or letter not in tuple(options["label"]):
        return
    listed = [f"{label}: {text}" for label, text in zip(options["label"], options["text"], strict=True)]
    question = "\n".join([str(cells["question"]).strip(), "", *listed])
    row = {"system": SCIENCE_SYSTEM, "question": question, "answers": [letter], "split": _split_of(question)}
    yield {**row, "answer": f"<answer>\n{letter}\n</answer>"}


def _split_of(key: str) -> Split:
    share = int(_digest(key)[:12], 16) / 16**12
    return "train" if share < 0.75 else "validation" if share < 0.8 else "test"


# -------------------------------------------------------------------------------------------- tools

TOOLS_PROMPT = """Answer the user's question with the tools of this interface.

{name}: {description}
{documentation}

Write, for each call:
Thought: what is to be done
Action: the name of one tool
Action Input: its input, a JSON object with values that the user gave

Question: {question}"""


def _tools(cells: Cells) -> Iterator[Cells]:
    if "golden_answer" in cells:
        row = {"prompt": cells["prompt"], "answers": [_calls(cells["golden_answer"])]}
        worked = cells.get("golden_response")
        if worked:
            yield {**row, "completion": worked if isinstance(worked, str) else "\n".join(worked), "split": "train"}
        else:
            yield {**row, "split": "test"}
    elif "Golden_Answers" in cells:
        for question, calls in zip(cells["Instructions"], cells["Golden_Answers"], strict=True):
            yield {"prompt": _tools_prompt(cells, question), "answers": [_calls(calls)], "split": "test"}
    elif "Instances" in cells:
        yield from filter(None, (_instance(cells, instance) for instance in cells["Instances"] or ()))
    elif "NLDocumentation" not in cells:  # an interface for which ToolAlpaca has no instances gives nothing
        raise _unknown(cells)


def _instance(cells: Cells, instance: Cells) -> Cells | None:
    """A worked example of ToolAlpaca: its calls, without what the tools said to them; None if there are none."""
    steps = [step[0] for step in instance.get("intermediate_steps") or () if step[0][0] != "getDetails"]
    if not steps:
        return None
    calls = [{"Action": action, "Action_Input": given} for action, given, *_ in steps]
    texts = []
    for action, given, log in steps:
        thought = re.split(r"\n\s*(?:ASSISTANT )?Action:", log)[0].strip().removeprefix("Thought:").strip()
        texts.append("\n".join([f"Thought: {thought}", f"Action: {action}", f"Action Input: {given}"]))
    question = instance["input"].rsplit("\nHint: ", 1)[0]
    prompt = _tools_prompt(cells, question)
    return {"prompt": prompt, "answers": [_calls(calls)], "completion": "\n".join(texts), "split": "train"}


def _tools_prompt(cells: Cells, question: str) -> str:
    return TOOLS_PROMPT.format(
        name=cells["Name"],
        description=cells["Description"],
        documentation=cells["NLDocumentation"].strip(),
        question=question.strip(),
    )


def _calls(calls: Iterable[Cells]) -> str:
    """Calls as the scorer takes them: a JSON list of actions with their inputs."""
    plain = [{"Action": call["Action"], "Action_Input": call["Action_Input"]} for call in calls]
    return json.dumps(plain, ensure_ascii=False, sort_keys=True)


# ------------------------------------------------------------------------------------------ medical


def _medical(cells: Cells) -> Iterator[Cells]:
    """The response alone is the demonstration: the paper's are short answers, without the long reasoning."""
    if "Question" in cells and "Response" in cells:
        yield {"question": cells["Question"], "answer": cells["Response"], "split": "train"}
    elif "Open-ended Verifiable Question" in cells:
        question, answer = cells["Open-ended Verifiable Question"], cells["Ground-True Answer"]
        if str(question).strip() and str(answer).strip():  # a few have none
            yield {"question": question, "answers": [answer], "split": "test"}
    else:
        raise _unknown(cells)


READ: Mapping[str, Callable[[Cells], Iterator[Cells]]] = {"science": _science, "tools": _tools, "medical": _medical}
SCORERS: Mapping[str, Scorer] = {
    "science": Scorer("callable", {"path": "selftaught.evaluation.paper_scorers:science"}),
    "tools": Scorer("callable", {"path": "selftaught.evaluation.paper_scorers:tools"}),
    "medical": Scorer("callable", {"path": "selftaught.evaluation.paper_scorers:judge"}),
}


def _unknown(cells: Cells) -> DataError:
    return DataError(f"has the columns {', '.join(list(cells)[:8])}, which is no form of this data set")


def _mapping(cells: Any) -> Cells:
    if isinstance(cells, DataError):
        raise cells
    if not isinstance(cells, Mapping):
        raise DataError("is not an object; each row must be one")
    return cells


# ------------------------------------------------------------------------------------------ sources


def _rows(source: str | Path) -> Iterator[Row]:
    """The rows of a file, a folder, a hub data set, or an address."""
    path = Path(source)
    if path.is_dir():
        return chain.from_iterable(map(_rows_at, _entries(path)))
    if path.is_file():
        return _rows_at(path)
    if str(source).startswith("https://"):
        return _loaded(str(source), lambda datasets: datasets.Dataset.from_file(str(_downloaded(str(source)))))
    match = HUB_ID.fullmatch(str(source))
    if match is None or path.suffix in READERS:
        raise DataError(f"{source}: no such file or folder, nor a hub data set (owner/name); check it")
    return _loaded(str(source), lambda datasets: datasets.load_dataset(match["name"], match["split"]))


def _entries(folder: Path) -> list[Path]:
    """What to read in a folder: a data set's files, or folders as `datasets` saves them."""
    if (folder / "state.json").is_file():
        return [folder]
    names = [path for path in sorted(folder.iterdir()) if path.name.lower().startswith(FILE_NAMES)]
    entries = [path for path in names if path.suffix.lower() in READERS or (path / "state.json").is_file()]
    if not entries:
        raise DataError(f"{folder}: holds no data that begins with {', '.join(FILE_NAMES)}; name the file itself")
    return entries


def _rows_at(path: Path) -> Iterator[Row]:
    if path.is_dir():
        return _loaded(str(path), lambda datasets: datasets.load_from_disk(str(path)))
    if path.suffix.lower() not in READERS:
        raise DataError(f"{path}: {path.suffix or 'no suffix'} is not a format we read; use {', '.join(READERS)}")
    rows = READERS[path.suffix.lower()](path)
    return (Row(row.number, f"{path.name}, {row.place}", row.cells) for row in rows)


def _downloaded(url: str) -> Path:
    """A file from the network, kept: by plain HTTP, for which `datasets` would need packages that it lacks."""
    kept = cache_folder() / "paper" / _digest(url)[:16] / url.rpartition("/")[2]
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            part = Path(scratch) / kept.name
            with urllib.request.urlopen(url, timeout=SECONDS) as reply, part.open("wb") as file:
                shutil.copyfileobj(reply, file)
            part.replace(kept)
    return kept


def _loaded(place: str, load: Callable[[Any], Any]) -> Iterator[Row]:
    """The rows of what is loaded by `datasets`, all splits after one another."""
    datasets = import_module("datasets")
    try:
        found = load(datasets)
        for part in found.values() if isinstance(found, Mapping) else [found]:
            for number, cells in enumerate(part, start=1):
                yield Row(number, f"{place}, row {number}", cells)
    except Exception as error:  # anything may come out of the network and a data set's own files
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{place}: cannot be loaded ({reason}); check the network, or name files that you have: "
            f"{PREFIX}SKILL=FOLDER"
        ) from error
