"""Skills built from wheels made here, in the format of the real ones; the real ones in a slow test."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest

from selftaught.data.skills import SKILLS, build_skill, medical, science, tools
from selftaught.data.skills.built import BuiltSkill, hashed, shuffled
from selftaught.data.validate import data_hash
from selftaught.errors import ConfigError, DataError
from selftaught.evaluation.scorers import check_scorers, score
from selftaught.types import Example

# ------------------------------------------------------------------------------------- the made tables


def tool_row(number: int, called: str, *offered: str, group: str = "simple") -> tuple[str, dict[str, Any], Any]:
    """One row of the leaderboard: its group, its question and its accepted answer."""
    parameters = {"type": "dict", "properties": {"place": {"type": "string"}}, "required": ["place"]}
    row = {
        "id": f"{group}_{number}",
        "question": [[{"role": "user", "content": f"Ask number {number} about Ulm."}]],
        "function": [{"name": name, "description": name, "parameters": parameters} for name in (called, *offered)],
    }
    accepted = {
        called: {"place": ["Ulm", "Ulm, Germany"], "unit": ["", "km"], "how": [{"deep": [[1, 2]], "not": [""]}]}
    }
    return group, row, accepted


def tool_rows() -> list[tuple[str, dict[str, Any], Any]]:
    simple = [tool_row(number, f"simple.{number % 400}") for number in range(410)]
    multiple = [tool_row(number, f"many.{number}", f"other.{number % 90}", group="multiple") for number in range(110)]
    live = [tool_row(number, f"live.{number // 3}", group="live") for number in range(150)]
    live += [tool_row(number, "live.popular", group="live") for number in range(150, 170)]
    long = tool_row(999, "x" * tools.MAX_CHARACTERS)
    return [*simple, *multiple, *live, long]


def tool_files() -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for group, name in tools.FILES.items():
        rows = [(row, accepted) for of, row, accepted in tool_rows() if of == group]
        answers = [{"id": row["id"], "ground_truth": [accepted]} for row, accepted in rows]
        files[f"bfcl_eval/data/BFCL_v4_{name}.json"] = json_lines(row for row, _ in rows)
        files[f"bfcl_eval/data/possible_answer/BFCL_v4_{name}.json"] = json_lines(answers)
    return files


def json_lines(rows: Iterable[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode("utf-8")


def item(kind: str, name: str, description: str, inside: str = "") -> str:
    heading = f"<name>{escape(name)}</name><description>{escape(description)}</description>"
    return f'<item type="{kind}">{heading}{inside}</item>'


def disease_table() -> bytes:
    """Each chapter with 16 categories of a block of its own, and each block that the skill asks about with ten."""
    chapters = []
    for number, chapter in enumerate(medical.CHAPTERS):
        own = "".join(category(f"{chapter}{index}") for index in range(16))
        blocks = item("block", f"{chapter}0-{chapter}9", "Own diseases", own)
        for block in medical.BLOCKS if number == 0 else ():
            ten = "".join(category(f"{block[:3]}{index}") for index in range(10))
            blocks += item("block", block, "Some diseases", ten)
        chapters.append(item("chapter", chapter, "A chapter", blocks))
    return f"<icd_10_v2019>{''.join(chapters)}</icd_10_v2019>".encode()


def category(code: str) -> str:
    """A category that is only clear from what lies below it, beside one that is coded by its cause as well."""
    texts = ("Other aches", f"Ache {code}", f"Late ache {code}", f"Ache {code}", f"Early ache {code}")
    below = "".join(item("subcategory", f"{code}.{index}", text) for index, text in enumerate(texts))
    cause = item("subcategory", f"{code}x.0", f"Twofold {code}")
    caused = item("category", f"{code}x", "Aches in diseases classified elsewhere", cause)
    return item("category", code, f"Aches of {code}, unspecified", below) + caused


def wording_table() -> bytes:
    categories = ""
    for code in (*medical.CODES, "A00"):
        ache = f"ache {code[::-1]}"  # the code itself would answer the question
        notes = f"<inclusionTerm><note>Grave {ache}</note><note>Fever {ache} [old]</note></inclusionTerm>"
        below = "".join(f"<diag><name>{code}.1</name><desc>{word} {ache}</desc></diag>" for word in WORDS)
        categories += f"<diag><name>{code}</name><desc>Dull {ache}</desc>{notes}{below}</diag>"
    return f"<tabular><chapter><section>{categories}</section></chapter></tabular>".encode()


WORDS = ("Small", "Great", "Acute", "Sudden", "Slow", "Rare", "Common", "Late")


def element_table(path: Path) -> bytes:
    names = [*science.COMPARED, *(f"madeupium{number}" for number in range(40))]
    with sqlite3.connect(path) as connection:
        connection.execute(
            "create table elements (name, atomic_number, group_id, en_pauling, discovery_year, atomic_weight, "
            "is_radioactive)"
        )
        for number, name in enumerate(names, start=1):
            row = (name.capitalize(), number, number % 17 + 1, number / 20, 1700 + number, 2.0 * number, 0)
            connection.execute("insert into elements values (?, ?, ?, ?, ?, ?, ?)", row)
        connection.execute("insert into elements values ('Glowium', 70, null, null, null, 400, 1)")
        connection.execute("insert into elements values ('Nobleium', 71, null, null, null, 300, 0)")
    connection.close()
    return path.read_bytes()


def compound_table() -> bytes:
    rows = [
        f"{number}\t{number}-0-0\tC{number}H4\t{20.04 + number}\tC\tC/h\tKEY\tiupac\t{name}\tsynonym"
        for number, name in enumerate([*science.COMPOUNDS, "not asked about"], start=1)
    ]
    return "\n".join(rows).encode("utf-8")


Files = dict[str, dict[str, bytes]]


def made_files(folder: Path) -> Files:
    """What each package holds, by its requirement."""
    return {
        tools.PACKAGE: tool_files(),
        medical.PACKAGE: {medical.MEMBER: disease_table()},
        medical.WORDINGS_PACKAGE: {medical.WORDINGS_MEMBER: wording_table()},
        science.PACKAGE: {science.MEMBER: element_table(folder / "made.db")},
        science.COMPOUNDS_PACKAGE: {science.COMPOUNDS_MEMBER: compound_table()},
    }


@pytest.fixture
def made_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    """The packages' files; a test may change them before it builds a skill."""
    files = made_files(tmp_path)

    def wheel(requirement: str, sha256: str) -> Path:
        path = tmp_path / f"{requirement}.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files[requirement].items():
                archive.writestr(name, content)
        return path

    for module in (tools, medical, science):
        monkeypatch.setattr(module, "wheel", wheel)
    medical.root.cache_clear()
    yield files
    medical.root.cache_clear()


# ------------------------------------------------------------------------------------- of every skill


def check(skill: BuiltSkill) -> None:
    """What holds for every skill, made or real."""
    examples = skill.examples
    assert len({example.id for example in examples}) == len(examples)
    assert len({example.question for example in examples}) == len(examples)
    assert all(len(example.prompt) == 1 and example.prompt[0].role == "user" for example in examples)
    check_scorers(examples)
    for example in examples:
        assert example.demonstration
        assert example.answers
        assert score(example.demonstration, example), example.id
        assert not score("I do not know.", example)
        assert not score(example.question, example), example.id
    totals = {split: sum(groups.values()) for split, groups in skill.card["counts"].items()}
    assert 300 <= totals["train"] <= 400
    assert 150 <= totals["test"] <= 200
    assert 30 <= totals["validation"] <= 60
    assert sum(totals.values()) == len(examples)
    for groups in skill.card["counts"].values():
        assert groups.keys() == skill.card["counts"]["test"].keys()
    assert skill.card["title"] == skill.title
    assert all(skill.card[name] for name in ("source", "licence", "about", "split"))
    assert 0.5 < skill.card["ceiling"]["value"] <= 1
    assert skill.card["ceiling"]["why"]


def check_tools(skill: BuiltSkill) -> None:
    """No function of one split, called or offered, is known to another."""
    names: dict[str, set[str]] = {}
    for example in skill.examples:
        schemas = [json.loads(line) for line in example.question.splitlines() if line.startswith('{"name"')]
        names.setdefault(example.split, set()).update(schema["name"] for schema in schemas)
    assert names["train"]
    assert names["test"]
    assert not names["train"] & names["test"]
    assert not names["train"] & names["validation"]
    assert not names["validation"] & names["test"]


def check_medical(skill: BuiltSkill) -> None:
    """A category is in one group; in all but "code" it is in one split; every place that is asked was taught."""
    places: dict[str, set[tuple[str, str]]] = {}
    for example in skill.examples:
        group, code = example.id.split("-")[:2]
        places.setdefault(code, set()).add((group, "" if group == "code" else example.split))
    assert all(len(found) == 1 for found in places.values())
    taught = {(example.group, example.answers) for example in skill.examples if example.split == "train"}
    assert all((example.group, example.answers) in taught for example in skill.examples)


def check_science(skill: BuiltSkill) -> None:
    """Facts that are asked were taught; trios that are asked were not, in any order, but their elements were."""
    taught: dict[str, set[Any]] = {"fact": set(), "trio": set(), "element": set()}
    for example in skill.examples:
        if example.split != "train":
            continue
        if example.group == "comparison":
            taught["trio"].add(frozenset(trio(example)))
            taught["element"] |= set(trio(example))
        else:
            taught["fact"].add(example.demonstration)
    for example in skill.examples:
        if example.split != "train" and example.group == "comparison":
            assert frozenset(trio(example)) not in taught["trio"]
            assert set(trio(example)) <= taught["element"]
        elif example.split != "train":
            assert example.demonstration in taught["fact"]


def trio(example: Example) -> list[str]:
    """The elements that a comparison asks about, in its order."""
    return example.question.split(": ")[1].rstrip(".").split(", ")


CHECKS: dict[str, Callable[[BuiltSkill], None]] = {
    "tools": check_tools,
    "medical": check_medical,
    "science": check_science,
}


@pytest.mark.parametrize("name", SKILLS)
def test_a_skill_from_made_tables(name: str, made_wheels: Files) -> None:
    skill = build_skill(name)
    assert skill.name == name
    check(skill)
    CHECKS[name](skill)
    assert data_hash(build_skill(name).examples) == data_hash(skill.examples)


@pytest.mark.slow
@pytest.mark.parametrize("name", SKILLS)
def test_a_real_skill(name: str) -> None:
    """From the registry; the hash is that of the rows with which docs/skills.md was measured."""
    skill = build_skill(name)
    check(skill)
    CHECKS[name](skill)
    if name != "tools":
        assert max(len(example.question) for example in skill.examples) < 200
        assert max(len(example.demonstration or "") for example in skill.examples) < 140
    assert data_hash(skill.examples)[:12] == HASHES[name]


HASHES = {"tools": "1fca0b0f7097", "medical": "047ff685073b", "science": "4c6bcaae4af7"}


@pytest.mark.slow
def test_a_real_skill_is_the_same_in_every_process() -> None:
    """Sets of texts have another order in each process."""
    code = (
        "from selftaught.data.skills import build_skill; from selftaught.data.validate import data_hash; import sys; "
        "print(data_hash(build_skill('tools').examples), 'torch' in sys.modules)"
    )
    outputs = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        outputs.add(done.stdout)
    assert len(outputs) == 1
    assert outputs.pop().split()[1] == "False"


def test_unknown_skill() -> None:
    with pytest.raises(ConfigError, match="unknown skill 'cooking'; use one of tools, medical, science"):
        build_skill("cooking")


def test_order_that_names_decide() -> None:
    assert hashed("name") == hashed("name") != hashed("other")
    names = [str(number) for number in range(30)]
    order = shuffled(names, str, "salt")
    assert sorted(order) == sorted(names) != order
    assert shuffled(reversed(names), str, "salt") == order != shuffled(names, str, "pepper")


# ----------------------------------------------------------------------------------------------- tools


def test_demonstration_of_a_call() -> None:
    """The first accepted values; what may be left out is left out, inside an object too."""
    group, row, accepted = tool_row(1, "travel.plan")
    example = tools.tool_example({**row, "group": group, "accepted": accepted}, "test")
    assert json.loads(example.demonstration or "") == {
        "name": "travel.plan",
        "arguments": {"place": "Ulm", "how": {"deep": [1, 2]}},
    }
    assert example.split == "test"
    assert score(
        '{"name": "travel.plan", "arguments": {"place": "ulm, germany", "how": {"deep": [1, 2]}, "unit": "km"}}',
        example,
    )
    assert not score('{"name": "travel.plan", "arguments": {"place": "Bonn", "how": {"deep": [1, 2]}}}', example)


def test_rows_that_share_functions_are_one_family() -> None:
    chain = [("a",), ("b", "c"), ("d",), ("a", "b"), ("e", "d"), ("f",)]
    rows = [tool_row(number, *names)[1] for number, names in enumerate(chain)]
    found = {frozenset(row["id"] for row in family) for family in tools.families(rows)}
    assert found == {
        frozenset({"simple_0", "simple_1", "simple_3"}),
        frozenset({"simple_2", "simple_4"}),
        frozenset({"simple_5"}),
    }


def test_popular_functions_and_long_rows(made_wheels: Files) -> None:
    skill = build_skill("tools")
    popular = [example for example in skill.examples if "live.popular" in example.question]
    assert len(popular) <= tools.MAX_OF_A_FAMILY
    assert all(len(example.question) < tools.MAX_CHARACTERS + len(tools.INSTRUCTION) + 10 for example in skill.examples)


def test_system_turn_stays_in_front() -> None:
    _, row, accepted = tool_row(1, "travel.plan")
    row["question"][0].insert(0, {"role": "system", "content": "You plan travels. "})
    example = tools.tool_example({**row, "group": "live", "accepted": accepted})
    assert example.question.startswith("You plan travels.\n\nAsk number 1 about Ulm.\n\n{")


def test_ceiling_counts_what_cannot_be_read(made_wheels: Files) -> None:
    assert build_skill("tools").card["ceiling"]["value"] == 1.0
    for name, content in made_wheels[tools.PACKAGE].items():
        made_wheels[tools.PACKAGE][name] = content.replace(b"about Ulm.", b"about the town.")
    assert tools.build().card["ceiling"]["value"] == 0.0


# --------------------------------------------------------------------------------------------- medical


def test_questions_of_medical_coding(made_wheels: Files) -> None:
    skill = build_skill("medical")
    rows = {example.id: example for example in skill.examples}
    chapter = next(row for name, row in rows.items() if name.startswith("chapter-VII"))
    assert chapter.question.startswith('Which chapter of ICD-10 covers "Ache VII')
    assert (chapter.demonstration or "").endswith("is in the chapter on diseases of the eye.")
    assert score("Diseases of the eye", chapter)
    block = next(row for name, row in rows.items() if name.startswith("block-B65"))
    assert (block.demonstration or "").endswith(" is among some diseases, codes B65-B83.")
    assert not any("Twofold" in row.question for row in skill.examples)
    assert not any("[old]" in row.question for row in skill.examples)
    assert rows["code-A15-0"].demonstration == "Dull ache 51A is in the category Dull ache 51A, code A15."


@pytest.mark.parametrize("word", ["ACHES", "an aching foot"])
def test_wordings_that_share_a_word(word: str) -> None:
    assert medical.shares_word("Aching feet", [word]) is (word != "ACHES")


@pytest.mark.parametrize(
    ("package", "member", "content", "message"),
    [
        (medical.PACKAGE, medical.MEMBER, b"<a>", "is not XML"),
        (medical.PACKAGE, medical.MEMBER, b"<a></a>", "block B35-B49 has too few clear descriptions"),
        (medical.WORDINGS_PACKAGE, medical.WORDINGS_MEMBER, b"<a></a>", "A15 has too few clear wordings"),
        (science.PACKAGE, science.MEMBER, b"no database, but long enough to be one " * 9, "cannot be read"),
        (science.COMPOUNDS_PACKAGE, science.COMPOUNDS_MEMBER, b"", "has no acetic acid, acetone"),
    ],
)
def test_other_tables_than_expected(
    package: str, member: str, content: bytes, message: str, made_wheels: Files
) -> None:
    made_wheels[package] = {member: content}
    name = "medical" if package in (medical.PACKAGE, medical.WORDINGS_PACKAGE) else "science"
    with pytest.raises(DataError) as caught:
        build_skill(name)
    assert message in str(caught.value)
    assert str(caught.value).startswith(package)
    assert "\n" not in str(caught.value)


# --------------------------------------------------------------------------------------------- science


def test_elements_that_are_left_out(made_wheels: Files) -> None:
    """Radioactive ones, and facts that the table does not know."""
    questions = " ".join(example.question for example in build_skill("science").examples)
    assert "glowium" not in questions
    assert "of nobleium on the Pauling scale" not in questions


def test_a_comparison_is_right_when_its_first_order_is(made_wheels: Files) -> None:
    example = next(row for row in build_skill("science").examples if row.group == "comparison")
    first, second, third = example.answers[0].split(", ")
    assert score(f"{first.upper()}, then\n{second} and {third}, not {second} or {first}.", example)
    assert not score(f"{first}, {third}, {second}", example)
    assert not score(f"{second}, {first}, {third}: no, {first}, {second}, {third}", example)
    assert not score(f"{first} and {second}", example)


def test_no_order_is_asked_more_than_others(made_wheels: Files) -> None:
    """Else its opposite would be a good guess."""
    orders: Counter[tuple[int, ...]] = Counter()
    for example in build_skill("science").examples:
        if example.group == "comparison":
            orders[tuple(example.answers[0].split(", ").index(name) for name in trio(example))] += 1
    assert len(orders) == 5
    assert (0, 1, 2) not in orders
    assert max(orders.values()) < 2 * min(orders.values())


def test_a_molar_mass_may_be_rounded(made_wheels: Files) -> None:
    example = next(row for row in build_skill("science").examples if row.group == "molar_mass")
    mass = float(example.answers[0])
    assert score(f"About {mass * 1.004:.2f} grams.", example)
    assert not score(f"About {mass * 1.01:.2f} grams.", example)
