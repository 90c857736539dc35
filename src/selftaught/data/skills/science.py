"""Chemistry: facts about elements and compounds.

Three groups. "value" (a number that belongs to an element) and "molar_mass" (of a compound) teach each fact in
some wordings and ask for it in others. "comparison" (three elements, ordered by atomic weight) asks
about trios that were never shown, of elements that were.
"""

from __future__ import annotations

import re
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, pairwise, permutations
from pathlib import Path

from selftaught.data.packages import read_member, wheel
from selftaught.data.skills.built import BuiltSkill, built, hashed, shuffled
from selftaught.errors import DataError
from selftaught.types import Example, Message, Scorer, Split

PACKAGE = "mendeleev==1.3.0"
SHA256 = "76f415767b654634e51dead755513ef431abf200e892eab8468aa659ff218d1c"
MEMBER = "mendeleev/elements.db"
COMPOUNDS_PACKAGE = "chemicals==1.5.2"
COMPOUNDS_SHA256 = "f85ef7f36e77fee634686c26562929ee61026cd548d89cebd57b2251ca843d6e"
COMPOUNDS_MEMBER = "chemicals/Identifiers/chemical identifiers pubchem small.tsv"

QUERY = """
    select lower(name), atomic_number, group_id, en_pauling, discovery_year, atomic_weight from elements
    where atomic_number <= 83 and not is_radioactive order by atomic_number
"""

WORDINGS = {  # the asked ones differ from fact to fact
    "number": (
        "What is the atomic number of {name}?",
        "How many protons does an atom of {name} have?",
        "Give the number of the element {name} in the periodic table.",
        "Which atomic number does {name} have?",
        "By its protons, which number is {name} among the elements?",
        "State the atomic number of the element {name}.",
        "How many protons are in the nucleus of {name}?",
        "Under which atomic number is {name} listed?",
    ),
    "group": (
        "In which group of the periodic table is {name}? Answer with the group's number.",
        "What is the group number of {name} in the periodic table?",
        "Which numbered column of the periodic table holds {name}?",
        "Give the number of the group to which {name} belongs.",
        "To which numbered group of elements does {name} belong?",
        "State the periodic table group of {name} as a number.",
        "Which group number does the element {name} have?",
        "Where is {name} in the periodic table, by the number of its group?",
    ),
    "electronegativity": (
        "What is the electronegativity of {name} on the Pauling scale?",
        "How electronegative is {name}, in Pauling's units?",
        "Give the Pauling electronegativity of the element {name}.",
        "Which electronegativity does {name} have by Pauling's scale?",
        "State the electronegativity of {name} (Pauling).",
        "On the Pauling scale, how strongly does {name} attract electrons?",
        "What value does the Pauling scale give to {name}?",
        "What is the Pauling electronegativity of {name}?",
    ),
    "year": (
        "In which year was {name} discovered?",
        "When was the element {name} discovered? Answer with the year.",
        "Give the year of the discovery of {name}.",
        "What year was {name} first found?",
        "State the year in which {name} was discovered.",
        "In what year did chemists discover {name}?",
        "Which year saw the discovery of the element {name}?",
        "Since which year has the element {name} been known?",
    ),
    "molar_mass": (
        "What is the molar mass of {name} in g/mol?",
        "How many grams does one mole of {name} weigh?",
        "How heavy is a mole of {name}? Answer in grams.",
        "Give the molar mass of {name} in grams per mole.",
        "What does one mole of {name} weigh, in grams?",
        "State the molar mass of the compound {name}.",
        "Which mass in grams has a mole of {name}?",
        "In g/mol, what is the molar mass of {name}?",
    ),
}
DEMONSTRATIONS = {
    "number": "{Name} has atomic number {value}.",
    "group": "{Name} is in group {value}.",
    "electronegativity": "{Name} has a Pauling electronegativity of {value}.",
    "year": "{Name} was discovered in {value}.",
    "molar_mass": "{Name} has a molar mass of {value} g/mol.",
}
# Few facts and many wordings of each: a short run on a small model learns those, and not ten times as many.
NUM_VALUES = 30  # facts about elements
TAUGHT_WORDINGS, TEST_WORDINGS = 5, 2
VALIDATED_FACTS = 3  # one fact in so many has a validation row, its last wording
MASS_TOLERANCE = 0.005  # relative: "46" is as right as "46.07"

COMPOUNDS = (
    *("acetic acid", "acetone", "benzene", "caffeine", "carbon dioxide", "carbon monoxide", "chloroform", "ethanol"),
    *("formaldehyde", "glycerol", "methanol", "phenol", "sodium chloride", "sulfuric acid", "toluene", "urea"),
)

COMPARED = (  # well known, and the elements of the group "value" as well
    *("hydrogen", "helium", "carbon", "oxygen", "sodium", "aluminum", "sulfur", "calcium", "iron", "copper", "zinc"),
    *("bromine", "silver", "tin", "iodine", "barium", "tungsten", "platinum", "gold", "mercury", "lead"),
)
COMPARISON = "Order these elements by atomic weight, the lightest first: {names}."
NUM_COMPARISONS: dict[Split, int] = {"test": 60, "validation": 20, "train": 110}
MIN_RATIO = 1.15  # of an atom's weight to the next lighter one's


@dataclass(frozen=True)
class Element:
    """What the skill asks about an element; None where the table knows nothing."""

    name: str
    number: int
    group: int | None
    electronegativity: float | None
    year: int | None
    weight: float


@dataclass(frozen=True)
class Fact:
    """One number that belongs to one thing."""

    kind: str
    name: str
    value: str


def build() -> BuiltSkill:
    """Builds the skill.

    Raises:
        DataError: a package cannot be had, or does not hold what is expected.
    """
    elements = _elements()
    values = shuffled(_values(elements), lambda fact: f"{fact.kind}/{fact.name}", "science")[:NUM_VALUES]
    examples = list(_taught_and_asked(values, "value", Scorer("number")))
    examples += _taught_and_asked(_molar_masses(), "molar_mass", Scorer("number", {"tolerance": MASS_TOLERANCE}))
    examples += _comparisons({element.name: element.weight for element in elements})
    return built("science", TITLE, examples, FACTS, CEILING)


# ----------------------------------------------------------------------------------------- the tables


def _elements() -> list[Element]:
    database = read_member(wheel(PACKAGE, SHA256), MEMBER)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "elements.db"
        path.write_bytes(database)
        connection = sqlite3.connect(path)
        try:
            return [Element(*row) for row in connection.execute(QUERY)]
        except sqlite3.Error as error:
            raise DataError(f"{PACKAGE}: {MEMBER} cannot be read ({error}); take another version of it") from error
        finally:
            connection.close()


def _values(elements: Sequence[Element]) -> Iterator[Fact]:
    for element in elements:
        if element.name not in COMPARED:
            continue
        yield Fact("number", element.name, str(element.number))
        if element.group is not None:
            yield Fact("group", element.name, str(element.group))
        if element.electronegativity is not None:
            yield Fact("electronegativity", element.name, f"{element.electronegativity:.2f}")
        if element.year is not None:
            yield Fact("year", element.name, str(element.year))


def _molar_masses() -> list[Fact]:
    """The compounds that the skill names, as the table of identifiers has them."""
    table = read_member(wheel(COMPOUNDS_PACKAGE, COMPOUNDS_SHA256), COMPOUNDS_MEMBER).decode("utf-8")
    found: dict[str, Fact] = {}
    for line in table.splitlines():
        _, _, _, mass, _, _, _, _, name, *_ = line.split("\t")
        if name in COMPOUNDS:
            found.setdefault(name, Fact("molar_mass", name, f"{float(mass):.1f}"))
    missing = [name for name in COMPOUNDS if name not in found]
    if missing:
        raise DataError(f"{COMPOUNDS_PACKAGE}: has no {', '.join(missing)}; take another version of it")
    return list(found.values())


# ------------------------------------------------------------------------------------- facts, reworded


def _taught_and_asked(facts: Sequence[Fact], group: str, scorer: Scorer) -> Iterator[Example]:
    """Each fact in its wordings, in an order of its own: the first are taught, the next ones asked."""
    for number, fact in enumerate(facts):
        wordings = shuffled(WORDINGS[fact.kind], str, f"{fact.kind}/{fact.name}")
        splits: list[Split] = ["train"] * TAUGHT_WORDINGS
        splits += ["test"] * TEST_WORDINGS
        if number % VALIDATED_FACTS == 0:
            splits.append("validation")
        for wording, split in zip(wordings, splits):
            yield Example(
                id=f"{fact.kind}-{fact.name}-{WORDINGS[fact.kind].index(wording)}".replace(" ", "-"),
                prompt=(Message("user", wording.format(name=fact.name)),),
                demonstration=DEMONSTRATIONS[fact.kind].format(Name=fact.name.capitalize(), value=fact.value),
                answers=(fact.value,),
                scorer=scorer,
                group=group,
                split=split,
            )


# --------------------------------------------------------------------------------------- comparisons


def _comparisons(weights: dict[str, float]) -> Iterator[Example]:
    """Trios of clearly different weights; each is asked about once, in one order, which is never the right one."""
    trios = [sorted(trio, key=lambda name: weights[name]) for trio in combinations(COMPARED, 3)]
    clear = [trio for trio in trios if all(weights[b] >= MIN_RATIO * weights[a] for a, b in pairwise(trio))]
    order = iter(shuffled(clear, "/".join, "science"))
    for split, size in NUM_COMPARISONS.items():
        yield from (_comparison(trio, split) for trio in islice(order, size))


def _comparison(right: Sequence[str], split: Split) -> Example:
    _, *wrong_orders = permutations(right)
    names = wrong_orders[hashed("/".join(right)) % len(wrong_orders)]
    return Example(
        id=f"comparison-{'-'.join(names)}",
        prompt=(Message("user", COMPARISON.format(names=", ".join(names))),),
        demonstration="The lightest is {}, the next is {}, and the heaviest is {}.".format(*right),
        answers=(", ".join(right),),
        scorer=Scorer("regex", {"pattern": _first_named_in_order(right)}),
        group="comparison",
        split=split,
    )


def _first_named_in_order(names: Sequence[str]) -> str:
    """A pattern of texts that name each for the first time in this order: no text can name all orders and be right."""
    first, second, third = (rf"\b{re.escape(name)}\b" for name in names)
    return rf"(?is)^(?:(?!{second}|{third}).)*{first}(?:(?!{third}).)*{second}.*{third}"


# ---------------------------------------------------------------------------------------------- card

TITLE = "Chemistry facts"
FACTS = {
    "source": f"{PACKAGE}, {COMPOUNDS_PACKAGE}",
    "licence": "MIT, MIT",
    "about": (
        "Numbers of chemistry and what follows from them. Groups: value (an element's atomic number, group, "
        "electronegativity or year of discovery), molar_mass (a compound's, to half a percent), comparison (three "
        "elements in the order of their atomic weights; they are never asked in the right order, so that a guess is "
        "right one time in five)."
    ),
    "split": (
        f"Value and molar_mass: by wording; each fact is taught in {TAUGHT_WORDINGS} wordings and asked in "
        f"{TEST_WORDINGS} others, so the test measures recall of taught facts, not new ones. Comparison: by trio; "
        "the test asks about trios that were never shown, of elements that were, so it measures whether single "
        "answers add up to an order."
    ),
}
CEILING = (
    1.0,
    "every fact that is asked was taught in other words, and the weights of compared elements differ "
    f"by {100 * (MIN_RATIO - 1):.0f}% or more",
)
