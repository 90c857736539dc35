"""A sequential experiment in sentences, and as a table for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from selftaught.reports.tables import (
    DASH,
    NOTHING,
    Column,
    fitting_table,
    interval,
    nats,
    percent,
    points,
    signed,
    times,
)

if TYPE_CHECKING:
    from rich.table import Table

Report = Mapping[str, Any]
Row = Mapping[str, Any]
UNBROKEN = "\N{NO-BREAK SPACE}"
NUMBER_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def in_words(number: int) -> str:
    """A small number as a word."""
    return NUMBER_WORDS[number] if number < len(NUMBER_WORDS) else str(number)


def sequence_title(num_skills: int) -> str:
    """What a report of so many skills is called."""
    return f"One model, {in_words(num_skills)} skill{'' if num_skills == 1 else 's'}"


# -------------------------------------------------------------------------------------- sentences


def sequence_headline(report: Report) -> str:
    """The result in one or two plain sentences."""
    summary, several = report["summary"], len(report["order"]) > 1
    averages = [(row["label"], percent(row["average"]["value"])) for row in summary]
    averages.append(("the base", percent(report["base"]["average"]["value"])))
    when = f"After {in_words(len(report['order']))} skills in turn" if several else "After its one stage"
    sentence = f"{when} {_listed(averages, 'answers', 'right' + (' on average' if several else ''))}."
    if several:
        kept = [(row["label"], _span([one["value"] for one in row["kept"].values()])) for row in summary]
        sentence += (
            f" Of the accuracy that each earlier skill had when it was just taught, {_listed(kept, 'kept', '')}."
        )
    return sentence


def _listed(pairs: Sequence[tuple[str, str]], verb: str, object_: str) -> str:
    """As in: SDFT kept 95%, SFT 30%. The first has the verb, with the others it is understood."""
    (label, value), *others = pairs
    first = " ".join(filter(None, (label, verb, value, object_)))
    return ", ".join([first, *(f"{label}{UNBROKEN}{value}" for label, value in others)])


def _span(shares: Sequence[float | None]) -> str:
    """From the least to the largest: "92–98%"."""
    known = [share for share in shares if share is not None]
    if not known:
        return "nothing"
    low, high = round(100 * min(known)), round(100 * max(known))
    return f"{low}%" if low == high else f"{low}{DASH}{high}%"


def comparisons(report: Report) -> list[str]:
    """SDFT beside each other method, a sentence a measure."""
    found = []
    for pair in report["differences"]:
        ours, theirs = (report["labels"][method] for method in pair["methods"])
        more = pair["average"]
        found.append(
            f"{ours}'s average is {points(abs(more['value']))} points {'above' if more['value'] >= 0 else 'below'} "
            f"{theirs}'s (95% interval of the difference: {points(more['low'])} to {points(more['high'])})."
        )
        words = []
        if pair["probe_ratio"] is not None:
            much = f"{_ratio(pair['probe_ratio'])} times as much" if pair["probe_ratio"]["value"] > 0 else "nothing"
            words.append(f"forgot {much} on the probes")
        if pair["drift_ratio"] is not None:
            words.append(f"drifted {_ratio(pair['drift_ratio'])} times as far from the base")
        if pair["seconds_ratio"] is not None:
            words.append(f"took {pair['seconds_ratio']:.1f} times as long")
        if words:
            found.append(f"Beside {theirs}, {ours} {_and(words)}.")
    return found


def _ratio(ratio: Mapping[str, Any]) -> str:
    if ratio["low"] is None:
        return times(ratio["value"])
    high = "more" if ratio["high"] is None else times(ratio["high"])
    return f"{times(ratio['value'])} ({times(ratio['low'])} to {high})"


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def resampled_words(report: Report) -> str:
    """What the intervals allow for."""
    draws = f"{report['intervals']['draws']} samples"
    if "seeds" in report["intervals"]["resampled"]:
        return f"the middle 95% of {draws} of the seeds and, each on its own, of the items"
    return f"the middle 95% of {draws} of the items; with one seed they say nothing of what another seed would give"


# -------------------------------------------------------------------------------- terminal table


def sequence_table(report: Report, width: int | None = None) -> Table:
    """Methods as rows; each skill at the end (and just after its own stage), and what was kept and forgotten.

    Where it would be wider than the terminal, first the intervals, then the least important columns are left out.

    Args:
        report: see `compose_sequence`.
        width: columns there are; None asks the terminal.
    """
    base = report["base"]
    before = {"label": "base", "average": base["average"], "matrix": [base["accuracy"]], "probe_mean": None}
    return fitting_table(
        "method", [before, *report["summary"]], [_columns(report, full) for full in (True, False)], width
    )


def _columns(report: Report, full: bool) -> list[Column]:
    order = report["order"]
    return [
        *(Column(name, _skill_cell(name, place, full), 60 - place) for place, name in enumerate(order)),
        Column("average", _estimate_cell(lambda row: row["average"], percent, interval if full else None), None),
        Column(
            "transfer",
            _estimate_cell(lambda row: row.get("backward_transfer"), _signed_points, _limits if full else None),
            30,
        ),
        Column("forgetting", _estimate_cell(lambda row: row.get("forgetting"), points, _limits if full else None), 70),
        Column("probes", lambda row: _probe_cell(report, row), 80),
        Column("drift", _estimate_cell(lambda row: (row.get("drift_nats") or [None])[-1], nats, None), 90),
        Column("minutes", lambda row: f"{row['seconds'] / 60:.1f}" if row.get("seconds") is not None else NOTHING, 20),
        Column("GiB", lambda row: f"{row['peak_memory_gib']:.1f}" if row.get("peak_memory_gib") else NOTHING, 10),
    ]


def _skill_cell(name: str, place: int, full: bool) -> Callable[[Row], str]:
    """At the end, and where it is not the same, how it was just after its stage: "54%, was 59%"."""

    def cell(row: Row) -> str:
        last = percent(row["matrix"][-1][name]["value"])
        if not full or place >= len(row["matrix"]) - 1:
            return last
        return f"{last}, was {percent(row['matrix'][place][name]['value'])}"

    return cell


def _estimate_cell(
    find: Callable[[Row], Any], words: Callable[[float], str], limits: Callable[[Any], str] | None
) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        found = find(row)
        if found is None:
            return NOTHING
        return words(found["value"]) + (f" ({limits(found)})" if limits else "")

    return cell


def _probe_cell(report: Report, row: Row) -> str:
    """Mean of the families, and its change since the base."""
    before = report["base"]["probe_mean"]
    if before is None:
        return NOTHING
    if row["probe_mean"] is None:
        return percent(before["value"])
    probe = row["probe_mean"]
    return f"{percent(probe['stages'][-1]['value'])} {signed(-100 * probe['forgotten']['value']):>3}"


def _signed_points(share: float) -> str:
    return points(share, True)


def _limits(found: Mapping[str, Any]) -> str:
    return f"{points(found['low'])} to {points(found['high'])}"
