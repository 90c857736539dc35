"""How well a judge agrees with the rules, and what was not scored, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selftaught.reports.tables import percent

Report = Mapping[str, Any]


def judging_lines(report: Report) -> list[str]:
    """What a judge said beside the rules, and how many answers nobody scored; no line where there is nothing to say.

    Args:
        report: of a run on documents.
    """
    lines = []
    if judge := report.get("judge"):
        lines.append(f"{judge['name']} judged {_answers(judge['answers'])}{_agreement(judge['agreement'])}.")
        if judge["unreadable"]:
            lines.append(f"It gave no verdict on {_answers(judge['unreadable'])} more.")
    not_scored: dict[str, int] = {}
    for groups in (report.get("knowledge") or {}).values():
        for group, grades in groups.items():
            not_scored[group] = not_scored.get(group, 0) + grades.get("not_scored", 0)
    if missing := {group: count for group, count in not_scored.items() if count}:
        listed = ", ".join(f"{count} {group}" for group, count in missing.items())
        hint = "" if report.get("judge") else "; name a --judge, and --resume"
        lines.append(f"Not scored: {_answers(sum(missing.values()))} that rules cannot tell of ({listed}){hint}.")
    return lines


def _answers(count: int) -> str:
    return f"{count} answer{'s' * (count != 1)}"


def _agreement(agreement: Mapping[str, Mapping[str, Any]]) -> str:
    """Of the answers that rules tell of too: how often both say the same, and Cohen's kappa."""
    count = agreement["strict"]["n"]
    if not count:
        return "; rules tell of none of them"
    parts = [
        f"{percent(one['share'])} {name} (kappa {'undefined' if one['kappa'] is None else format(one['kappa'], '.2f')})"
        for name, one in agreement.items()
    ]
    return f"; on the {count} that rules tell of too, both say the same of {' and '.join(parts)}"
