"""What a judge said beside the rules, and what nobody scored, in words."""

from __future__ import annotations

from typing import Any

from selftaught.reports.judging import judging_lines


def report(judge: dict[str, Any] | None = None, **not_scored: int) -> dict[str, Any]:
    groups = {group: {"strict": None, "lenient": None, "not_scored": count} for group, count in not_scored.items()}
    return {"judge": judge, "knowledge": {"base": groups, "sdft": groups}}


def judge(n: int, unreadable: int = 0, kappa: float | None = 0.5) -> dict[str, Any]:
    one = {"n": n, "share": 0.75 if n else None, "kappa": kappa}
    return {
        "name": "http://h/v1#m",
        "answers": 9,
        "unreadable": unreadable,
        "agreement": {"strict": one, "lenient": one},
    }


def test_nothing_to_say() -> None:
    assert judging_lines({"runs": []}) == judging_lines(report(taught=0)) == []


def test_what_was_not_scored_is_counted_with_the_way_to_mend_it() -> None:
    assert judging_lines(report(telling=3, taught=0, own=1)) == [
        "Not scored: 8 answers that rules cannot tell of (6 telling, 2 own); name a --judge, and --resume."
    ]


def test_the_judges_agreement_with_the_rules() -> None:
    assert judging_lines(report(judge(4), taught=0)) == [
        "http://h/v1#m judged 9 answers; on the 4 that rules tell of too, both say the same of 75% strict (kappa 0.50) "
        "and 75% lenient (kappa 0.50)."
    ]
    assert "(kappa undefined)" in judging_lines(report(judge(4, kappa=None)))[0]


def test_what_the_judge_could_not_be_compared_on_or_gave_no_verdict_of() -> None:
    assert judging_lines(report(judge(0, 1), telling=1)) == [
        "http://h/v1#m judged 9 answers; rules tell of none of them.",
        "It gave no verdict on 1 answer more.",
        "Not scored: 2 answers that rules cannot tell of (2 telling).",
    ]
