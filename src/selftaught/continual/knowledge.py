"""What models know of documents: by rules where they can tell, by a judge where they cannot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from selftaught.evaluation.judge import Grade, Judge, has_reference, is_free_text
from selftaught.evaluation.knowledge import grade
from selftaught.statistics import cohen_kappa
from selftaught.types import Example

GRADES = ("strict", "lenient")


def known(
    rows: Sequence[Example],
    done: Sequence[Mapping[str, Any]],
    judge: Judge | None = None,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """The strict and lenient accuracies, for a report.

    Args:
        rows: what was asked.
        done: the jobs' records.
        judge: asked about every answer that there is something to compare with; None leaves those unscored that rules
            cannot tell of.
        watch: told how many answers are judged, of how many.

    Returns:
        "knowledge": of each run and group {"strict", "lenient"} (None if nothing was scored), and how many answers are
        "by_judge" and "not_scored"; "judge": None, or its "name", how many "answers" it judged and how many of its
        replies were "unreadable", and its "agreement" with the rules, see `_agreement`.

    Raises:
        ConfigError: the judge does not answer.
    """
    examples = {row.id: row for row in rows}
    asked = [
        (record["name"], examples[item["id"]], item["completion"]) for record in done for item in record["results"]
    ]
    by_rules = [None if is_free_text(example) else grade(text, example) for _, example, text in asked]
    by_judge: list[Grade | None] = [None] * len(asked)
    told = None
    if judge is not None:
        places = [place for place, (_, example, _) in enumerate(asked) if has_reference(example)]
        found = judge.grades([(asked[place][2], asked[place][1]) for place in places], watch)
        for place, one in zip(places, found, strict=True):
            by_judge[place] = one
        told = {
            "name": judge.name,
            "answers": sum(one is not None for one in found),
            "unreadable": sum(one is None for one in found),
            "agreement": _agreement(by_rules, by_judge),
        }
    groups: dict[str, dict[str, list[tuple[Grade | None, Grade | None]]]] = {record["name"]: {} for record in done}
    for (run, example, _), rules, judged in zip(asked, by_rules, by_judge, strict=True):
        groups[run].setdefault(example.group, []).append((rules, judged))
    knowledge = {run: {group: _share(grades) for group, grades in found.items()} for run, found in groups.items()}
    return {"knowledge": knowledge, "judge": told}


def _share(grades: Sequence[tuple[Grade | None, Grade | None]]) -> dict[str, Any]:
    """A group's accuracies; rules go before the judge."""
    scored = [rules or judged for rules, judged in grades if rules or judged]
    accuracies = {
        name: fmean(one[place] for one in scored if one) if scored else None for place, name in enumerate(GRADES)
    }
    by_judge = sum(rules is None and judged is not None for rules, judged in grades)
    return {**accuracies, "by_judge": by_judge, "not_scored": len(grades) - len(scored)}


def _agreement(by_rules: Sequence[Grade | None], by_judge: Sequence[Grade | None]) -> dict[str, Any]:
    """Of strict and of lenient: of how many answers rules and judge both tell ("n"), of which share they say the same
    ("share"), and Cohen's "kappa"; None where it has no value."""
    both = [(rules, judged) for rules, judged in zip(by_rules, by_judge, strict=True) if rules and judged]
    return {
        name: {
            "n": len(both),
            "share": fmean(rules[place] == judged[place] for rules, judged in both) if both else None,
            "kappa": cohen_kappa([rules[place] for rules, _ in both], [judged[place] for _, judged in both]),
        }
        for place, name in enumerate(GRADES)
    }
