"""The gate: is the candidate promoted to HEAD? docs/gate.md explains the rules and says how often they err.

Each comparison has the same items answered by HEAD (before) and by the candidate (after), and becomes one check:

* a new skill is *improved* if McNemar's exact one-sided test says so; *unimproved* if a gain as large as the tolerance
  is ruled out;
* an earlier skill or a probe family is *kept* if a drop as large as its tolerance is ruled out: the lower limit of the
  score interval is above −tolerance (non-inferiority);
* any of them has *regressed* if its drop is more than chance, by the exact test after Holm's correction over all
  checks, and the drop seen is larger than the tolerance (for the new skill, which has to rise, any drop);
* else it is *undecided*.

Promoted: every check is improved or kept. Rejected: some check has regressed or is unimproved. Else inconclusive.
Promotion needs no correction for the number of checks: a candidate with one true loss must pass the test of that very
loss, so it is promoted with at most 1 − confidence, however many others pass (intersection–union test: Berger 1982,
Technometrics 24:295). Rejection does: each check is one more chance to reject without cause.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from selftaught.statistics import design_effect, holm, score_interval, score_z, sign_flip_p

Kind = Literal["new", "skill", "probe"]
CheckOutcome = Literal["improved", "kept", "regressed", "unimproved", "undecided"]
Outcome = Literal["promoted", "rejected", "inconclusive"]

PLAN_POWER = 0.8  # `more_items` decide with this chance, if the flips go on as seen
MOST_ITEMS = 100_000  # nobody writes more
EXAMPLES_NAMED = 3


@dataclass(frozen=True)
class Comparison:
    """One family of items, answered by both models.

    Attributes:
        name: of the skill or probe family, as the sentences call it.
        kind: "new": the skill just taught, which must improve; "skill", "probe": what must be kept.
        before: whether HEAD was right, by item id.
        after: whether the candidate was right, by the same ids.
        clusters: each item's cluster (wordings of one fact share one), by item id; None: items are independent.
        tolerance: the largest drop that is let pass, as a fraction: 0.03 is 3 points. For the new skill, the smallest
            gain worth having.

    Raises:
        ValueError: the ids differ, an item has no cluster, or the tolerance is not in [0, 1).
    """

    name: str
    kind: Kind
    before: Mapping[str, bool]
    after: Mapping[str, bool]
    clusters: Mapping[str, str] | None = None
    tolerance: float = 0.03

    def __post_init__(self) -> None:
        if odd := sorted(self.before.keys() ^ self.after.keys()):
            raise ValueError(f"{self.name}: items that one model only answered: {len(odd)}, for example {odd[0]!r}")
        if self.clusters is not None and (odd := sorted(self.before.keys() - self.clusters.keys())):
            raise ValueError(f"{self.name}: items without a cluster: {len(odd)}, for example {odd[0]!r}")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"{self.name}: the tolerance is a fraction in [0, 1), not {self.tolerance}")


@dataclass(frozen=True)
class Check:
    """What one comparison showed. Accuracies, changes and limits are fractions, not points.

    Attributes:
        name, kind, tolerance: the comparison's.
        total: number of items.
        before, after: accuracies; change is after − before.
        low, high: limits of the change, each of which holds with the gate's confidence: two one-sided limits, as the
            rules use them (at 95%, together a 90% interval).
        gained, lost: numbers of items that only the candidate, or only HEAD, has right.
        design_effect: the items are worth total / design_effect independent ones.
        p: exact one-sided p-value: of the gain for a new skill, of the drop for all others.
        p_drop_adjusted: that of the drop, after Holm's correction over all checks.
        more_items: about how many more items would decide, if they flip as these did (80% chance); None if it is
            decided or no practical number would.
        lost_ids, gained_ids: which items.
        sentence: all this in words.
    """

    name: str
    kind: Kind
    total: int
    before: float
    after: float
    change: float
    low: float
    high: float
    gained: int
    lost: int
    design_effect: float
    p: float
    p_drop_adjusted: float
    tolerance: float
    outcome: CheckOutcome
    more_items: int | None
    lost_ids: tuple[str, ...]
    gained_ids: tuple[str, ...]
    sentence: str = ""

    @property
    def passed(self) -> bool:
        """Whether this check lets the candidate through."""
        return self.outcome in ("improved", "kept")

    def as_dict(self) -> dict[str, object]:
        """Ready for JSON."""
        return dataclasses.asdict(self) | {"lost_ids": list(self.lost_ids), "gained_ids": list(self.gained_ids)}


@dataclass(frozen=True)
class Verdict:
    """The gate's decision, in one word, in one sentence, and check by check."""

    outcome: Outcome
    sentence: str
    checks: tuple[Check, ...]

    def as_dict(self) -> dict[str, object]:
        """Ready for JSON."""
        return {
            "outcome": self.outcome,
            "sentence": self.sentence,
            "checks": [check.as_dict() for check in self.checks],
        }


def judge(comparisons: Sequence[Comparison], confidence: float = 0.95) -> Verdict:
    """Decides whether the candidate may replace HEAD.

    Args:
        comparisons: the new skill (or several, or none), every earlier skill, every probe family.
        confidence: a candidate with a true loss beyond tolerance is promoted with at most 1 − confidence, and one that
            lost nothing is rejected for a loss with at most as much.

    Returns:
        The verdict; its checks are in the order of the comparisons. Nothing to compare is inconclusive.

    Raises:
        ValueError: two comparisons have one name, or the confidence is not in (0.5, 1).
    """
    names = [comparison.name for comparison in comparisons]
    if len(set(names)) < len(names):
        raise ValueError(f"comparisons need names of their own: {', '.join(names)}")
    if not 0.5 < confidence < 1:
        raise ValueError(f"confidence lies in (0.5, 1), not {confidence}")
    pairs = [_Paired(comparison, confidence) for comparison in comparisons]
    adjusted = holm([pair.p_drop for pair in pairs])
    checks = tuple(_check(pair, p, confidence, len(pairs)) for pair, p in zip(pairs, adjusted, strict=True))
    if any(check.outcome in ("regressed", "unimproved") for check in checks):
        outcome: Outcome = "rejected"
    else:
        outcome = "promoted" if checks and all(check.passed for check in checks) else "inconclusive"
    return Verdict(outcome, f"{outcome}: {_summary(outcome, checks)}", checks)


def smallest_tolerance(total: int, flipped: float, confidence: float = 0.95) -> float:
    """The smallest drop that so many items can rule out, if that share of them flips, as many either way.

    Args:
        total: number of items.
        flipped: share of them.
        confidence: of the gate.
    """
    each = round(total * flipped / 2)
    return -score_interval(each, each, total, 2 * confidence - 1)[0] if total else 1.0


# ------------------------------------------------------------------------------------------- one check


class _Paired:
    """What the rules are applied to: a comparison's flips, the limits of its change, and its p-values."""

    def __init__(self, comparison: Comparison, confidence: float) -> None:
        before, after, clusters = comparison.before, comparison.after, comparison.clusters
        self.comparison = comparison
        self.total = len(before)
        self.lost_ids = tuple(item for item in before if before[item] and not after[item])
        self.gained_ids = tuple(item for item in before if after[item] and not before[item])
        self.gained, self.lost = len(self.gained_ids), len(self.lost_ids)
        self.change = (self.gained - self.lost) / self.total if self.total else 0.0
        changes = {item: int(after[item]) - int(before[item]) for item in before}
        self.design_effect = 1.0
        by_cluster = list(changes.values())
        if clusters is not None and before:
            sums = dict.fromkeys((clusters[item] for item in before), 0)
            for item, change in changes.items():
                sums[clusters[item]] += change
            self.design_effect = design_effect(by_cluster, [clusters[item] for item in before])
            by_cluster = list(sums.values())
        self.p_gain, self.p_drop = sign_flip_p(by_cluster, "gain"), sign_flip_p(by_cluster, "loss")
        both = 2 * confidence - 1  # each limit alone then holds with `confidence`
        self.low, self.high = score_interval(self.gained, self.lost, self.total, both, self.design_effect)

    def z(self, change: float) -> float:
        """Distance of what was seen from a supposed change, in standard errors."""
        return float(score_z(self.gained, self.lost, self.total, change)) / math.sqrt(self.design_effect)


def _check(pair: _Paired, p_drop_adjusted: float, confidence: float, num_checks: int) -> Check:
    comparison, total = pair.comparison, pair.total
    outcome = _outcome(pair, p_drop_adjusted, 1 - confidence)
    check = Check(
        name=comparison.name,
        kind=comparison.kind,
        total=total,
        before=sum(comparison.before.values()) / total if total else 0.0,
        after=sum(comparison.after.values()) / total if total else 0.0,
        change=pair.change,
        low=pair.low,
        high=pair.high,
        gained=pair.gained,
        lost=pair.lost,
        design_effect=pair.design_effect,
        p=pair.p_gain if comparison.kind == "new" else pair.p_drop,
        p_drop_adjusted=p_drop_adjusted,
        tolerance=comparison.tolerance,
        outcome=outcome,
        more_items=_more_items(pair, confidence, num_checks) if outcome == "undecided" else None,
        lost_ids=pair.lost_ids,
        gained_ids=pair.gained_ids,
    )
    return dataclasses.replace(check, sentence=_sentence(check, confidence))


def _outcome(pair: _Paired, p_drop_adjusted: float, error: float) -> CheckOutcome:
    """The rules of the module's head."""
    tolerance, new = pair.comparison.tolerance, pair.comparison.kind == "new"
    if p_drop_adjusted <= error and pair.change < (0 if new else -tolerance):
        return "regressed"
    if not new:
        return "kept" if pair.low > -tolerance else "undecided"
    if pair.p_gain <= error:
        return "improved"
    return "unimproved" if pair.high < tolerance else "undecided"


def _more_items(pair: _Paired, confidence: float, num_checks: int) -> int | None:
    """How many more items would decide, if gains and losses keep their shares.

    z grows with the root of the number of items, so n (z_needed + z_power)² / z² of them have the wanted power.
    """
    tolerance, normal = pair.comparison.tolerance, NormalDist()
    if not pair.total:  # the fewest that decide anything: those of which none flips
        z = normal.inv_cdf(confidence)
        return math.floor(z * z * (1 - tolerance) / tolerance) + 1 if tolerance else None
    needed = normal.inv_cdf(confidence)
    if pair.comparison.kind == "new":  # it improves, or a gain is ruled out
        z = max(pair.z(0), -pair.z(tolerance))
    elif pair.change > -tolerance:  # it is kept
        z = pair.z(-tolerance)
    else:  # it has regressed, by the first step of Holm's correction
        z, needed = -pair.z(0), normal.inv_cdf(1 - (1 - confidence) / num_checks)
    if z <= 0:
        return None
    more = pair.total * (((needed + normal.inv_cdf(PLAN_POWER)) / z) ** 2 - 1)
    return max(1, math.ceil(more)) if more <= MOST_ITEMS else None


# ------------------------------------------------------------------------------------------- in words


def _sentence(check: Check, confidence: float) -> str:
    name, tolerance = check.name, f"{100 * check.tolerance:g}"
    limits = f"{100 * confidence:g}% limits {_points(check.low)} and {_points(check.high)}"
    change = f"{_points(check.change)} points, {limits}"
    from_to = f"from {check.before:.1%} to {check.after:.1%} ({change})"
    if check.outcome == "improved":
        return f"{name} rose {from_to}"
    if check.outcome == "kept":
        return f"{name} went {from_to}: a drop of {tolerance} points is ruled out"
    if check.outcome == "regressed":
        return f"{name} fell {from_to}, tolerance {tolerance}; {_lost(check)}"
    if check.outcome == "unimproved":
        return f"{name} did not improve: it went {from_to}, so a gain of {tolerance} points is ruled out"
    if not check.total:
        return f"{name} has no items" + (f"; at least {check.more_items} are needed" if check.more_items else "")
    more = "no practical number of items would decide"
    if check.more_items is not None:
        more = f"about {_count(_rounded(check.more_items), 'more item')} would decide"
    unsure = "which may be chance" if check.kind == "new" else f"tolerance {tolerance}"
    return f"{name} changed by {_points(check.change)} points ({limits}), {unsure}; {more}"


def _summary(outcome: Outcome, checks: Sequence[Check]) -> str:
    if not checks:
        return "nothing was compared"
    if outcome == "promoted":
        return "; ".join([*(check.sentence for check in checks if check.outcome == "improved"), _kept(checks)])
    if outcome == "rejected":
        against = [check for check in checks if check.outcome in ("regressed", "unimproved")]
        worst, *others = sorted(against, key=lambda check: (check.outcome == "unimproved", check.change))
        return worst.sentence + _named("; also against it", others)
    worst, *others = sorted((check for check in checks if not check.passed), key=lambda check: check.low)
    return worst.sentence + _named("; also undecided", others)


def _kept(checks: Sequence[Check]) -> str:
    """How many were kept, and within what."""
    kept = [check for check in checks if check.outcome == "kept"]
    if not kept:
        return "nothing else was compared"
    skills = sum(check.kind == "skill" for check in kept)
    parts = [_count(skills, "skill")] if skills else []
    if len(kept) > skills:
        parts.append(_count(len(kept) - skills, "probe family", "probe families"))
    tolerances = sorted({check.tolerance for check in kept})
    within = " to ".join(f"{100 * tolerance:g}" for tolerance in (tolerances[0], tolerances[-1])[: len(tolerances)])
    return f"{' and '.join(parts)} lost no more than {within} points"


def _named(lead: str, checks: Sequence[Check]) -> str:
    return f"{lead}: " + ", ".join(f"{check.name} ({_points(check.change)})" for check in checks) if checks else ""


def _lost(check: Check) -> str:
    gained = f" and {check.gained} gained" if check.gained else ""
    named = ", ".join(check.lost_ids[:EXAMPLES_NAMED])
    more = ", …" if check.lost > EXAMPLES_NAMED else ""
    return f"{_count(check.lost, 'item')} lost{gained}, for example {named}{more}"


def _points(fraction: float) -> str:
    """0.0123 → "+1.2", with a true minus, and no sign for what rounds to nothing."""
    points = round(100 * fraction, 1)
    return f"{points:+.1f}".replace("-", "−") if points else "0.0"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _rounded(number: int) -> int:
    """To two digits, upwards: it is an estimate."""
    step: int = 10 ** max(0, len(str(number)) - 2)
    return math.ceil(number / step) * step
