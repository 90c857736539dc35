"""How often the gate errs, and how many items it needs: `python bench/gate.py [--fast]` rewrites docs/gate.md's tables.

Two independent ways: the operating characteristics are simulated, by the gate's rules over many candidates at once
(and a sample of them judged by the gate itself, which has to agree); the sizes are summed exactly over all outcomes of
a family, and then simulated.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from selftaught.ledger.gate import Comparison, judge
from selftaught.statistics import design_effect, score_z

PAGE = Path(__file__).parents[1] / "docs" / "gate.md"
BEGIN, END = "<!-- written by bench/gate.py -->", "<!-- end -->"

CONFIDENCE, TOLERANCE = 0.95, 0.03
Z = NormalDist().inv_cdf(CONFIDENCE)
DISCORDANCES = (0.02, 0.05, 0.10, 0.15, 0.20)
SIZES = (100, 400, 1000, 1500, 2000, 2500, 3000)
CHANGES = (0.0, -0.015, -0.03, -0.06)
KEPT = 7  # five probe families and two earlier skills
NEW_ITEMS, NEW_GAINED, NEW_LOST = 150, 0.40, 0.01  # the new skill: 150 items, of which it learns 40%
JUDGED = 2  # of each cell's candidates, by the gate itself
SIZE_STEP = 10
WANTED = 0.95
OUTCOMES = ("promoted", "rejected", "inconclusive")

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


# --------------------------------------------------------------------------------- many candidates at once


def flips(discordance: float, change: float) -> tuple[float, float]:
    """The chances that an item is gained, and lost; at least |change| of the items flip."""
    discordance = max(discordance, abs(change))
    return (discordance + change) / 2, (discordance - change) / 2


def draw(random: np.random.Generator, runs: int, size: int, chances: tuple[float, float]) -> Ints:
    """Gained and lost of `runs` families: [runs, 2]."""
    return random.multinomial(size, [*chances, 1 - sum(chances)], runs)[:, :2]


def candidates(random: np.random.Generator, runs: int, size: int, discordance: float, change: float) -> Ints:
    """Gained and lost of each check, the new skill first and the family that changed second: [runs, 1 + KEPT, 2]."""
    new = draw(random, runs, NEW_ITEMS, (NEW_GAINED, NEW_LOST))
    changed = draw(random, runs, size, flips(discordance, change))
    others = [draw(random, runs, size, flips(discordance, 0.0)) for _ in range(KEPT - 1)]
    return np.stack([new, changed, *others], axis=1)


@cache
def tails(num_flips: int) -> Floats:
    """P(at least k of the flips are losses), k = 0 … num_flips, if each way is as likely."""
    ways = list(accumulate(math.comb(num_flips, k) for k in range(num_flips + 1)))  # of at most k
    return np.array([1.0, *(1 - below / 2**num_flips for below in ways[:-1])])


def exact_p(hits: Ints, misses: Ints) -> Floats:
    """McNemar's one-sided p-values, in the shape of the counts."""
    values = [tails(hit + miss)[hit] for hit, miss in zip(hits.ravel().tolist(), misses.ravel().tolist(), strict=True)]
    return np.array(values).reshape(hits.shape)


def outcomes(counts: Ints, size: int) -> npt.NDArray[np.str_]:
    """The gate's rules without its words: [runs, 1 + KEPT, 2] → [runs]."""
    gained, lost = counts[..., 0], counts[..., 1]
    totals = np.array([NEW_ITEMS] + [size] * (counts.shape[1] - 1))
    change = (gained - lost) / totals
    p = exact_p(lost, gained)
    order = np.argsort(p, axis=1)
    adjusted = np.maximum.accumulate(np.sort(p, axis=1) * np.arange(p.shape[1], 0, -1), axis=1)
    dropped = np.empty(p.shape, dtype=bool)
    np.put_along_axis(dropped, order, adjusted <= 1 - CONFIDENCE, axis=1)
    regressed = (dropped & (change < np.array([0.0] + [-TOLERANCE] * (p.shape[1] - 1)))).any(axis=1)
    kept = (score_z(gained, lost, totals, -TOLERANCE) > Z)[:, 1:].all(axis=1)
    improved = exact_p(gained[:, 0], lost[:, 0]) <= 1 - CONFIDENCE
    unimproved = ~improved & (score_z(gained[:, 0], lost[:, 0], NEW_ITEMS, TOLERANCE) < -Z)
    return np.select([regressed | unimproved, kept & improved], ["rejected", "promoted"], "inconclusive")


def judged(counts: Ints, size: int) -> str:
    """What the gate itself says of one candidate: [1 + KEPT, 2]."""
    comparisons = []
    for index, (gained, lost) in enumerate(counts.tolist()):
        total = size if index else NEW_ITEMS
        before = {f"{item}": item < lost for item in range(total)}
        after = {f"{item}": lost <= item < lost + gained for item in range(total)}
        comparisons.append(Comparison(f"family {index}", "probe" if index else "new", before, after))
    return judge(comparisons, CONFIDENCE).outcome


def shares(random: np.random.Generator, runs: int, size: int, discordance: float, change: float) -> dict[str, float]:
    """How often each outcome comes up."""
    counts = candidates(random, runs, size, discordance, change)
    found = outcomes(counts, size)
    for index in range(JUDGED):
        assert judged(counts[index], size) == found[index], (counts[index], size)
    return {outcome: float(np.mean(found == outcome)) for outcome in OUTCOMES}


# ------------------------------------------------------------------------------------------ exact sizes


def everything(size: int, chances: tuple[float, float]) -> tuple[Ints, Ints, Floats]:
    """All likely outcomes of a family (to 8 standard deviations) with their probabilities, as flat arrays."""
    ranges = []
    for chance in chances:
        middle, reach = size * chance, 8 * math.sqrt(size * chance * (1 - chance)) + 8
        ranges.append(np.arange(max(0, int(middle - reach)), min(size, int(middle + reach)) + 1))
    gained, lost = (grid.ravel() for grid in np.meshgrid(*ranges, indexing="ij"))
    gained, lost = gained[gained + lost <= size], lost[gained + lost <= size]
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, size + 1)))])  # log factorials
    rest = size - gained - lost
    log = logs[size] - logs[gained] - logs[lost] - logs[rest] + rest * math.log1p(-sum(chances))
    for count, chance in ((gained, chances[0]), (lost, chances[1])):
        log = log + (count * math.log(chance) if chance > 0 else np.where(count > 0, -np.inf, 0.0))
    return gained, lost, np.exp(log)


def chance_kept(size: int, discordance: float, change: float) -> float:
    """P(a family is found kept)."""
    gained, lost, weights = everything(size, flips(discordance, change))
    return float(weights[score_z(gained, lost, size, -TOLERANCE) > Z].sum())


def chance_regressed(size: int, discordance: float, change: float, num_checks: int) -> float:
    """P(a family is found regressed) by the first step of Holm's correction, so a little too low."""
    gained, lost, weights = everything(size, flips(discordance, change))
    beyond = (gained - lost) / size < -TOLERANCE
    weights, p = weights[beyond], exact_p(lost[beyond], gained[beyond])
    return float(weights[p <= (1 - CONFIDENCE) / num_checks].sum())


def good_enough(size: int, discordance: float, num_kept: int) -> bool:
    """Both requirements: all kept if nothing was lost, and a loss of 6 points in one family found."""
    kept = chance_kept(size, discordance, 0.0) ** num_kept
    return kept >= WANTED and chance_regressed(size, discordance, CHANGES[-1], num_kept + 1) >= WANTED


def smallest_size(discordance: float, num_kept: int) -> int:
    """The fewest items a family, from where on both requirements hold."""
    z = Z + NormalDist().inv_cdf(WANTED ** (1 / num_kept))
    size = int(1.2 * discordance * (z / TOLERANCE) ** 2 / SIZE_STEP + 20) * SIZE_STEP
    assert good_enough(size, discordance, num_kept)
    while good_enough(size - SIZE_STEP, discordance, num_kept):
        size -= SIZE_STEP
    return size


def smallest_rejecting(discordance: float, num_kept: int) -> int:
    """The fewest items a family with which a loss of 6 points is found."""
    size = SIZE_STEP
    while chance_regressed(size, discordance, CHANGES[-1], num_kept + 1) < WANTED:
        size += SIZE_STEP
    return size


# --------------------------------------------------------------------------------------------- clusters


def clustered(
    random: np.random.Generator, runs: int, shape: tuple[int, int], chances: tuple[float, float], together: float
) -> Ints:
    """Changes of items in clusters, of which a share flip as one: [runs, clusters, size of a cluster]."""
    items = random.choice([1, -1, 0], (runs, *shape), p=[*chances, 1 - sum(chances)])
    whole = random.random((runs, shape[0], 1)) < together
    return np.where(whole, items[..., :1], items)


def let_pass(changes: Ints) -> tuple[float, float]:
    """How often a family is found kept: if its items are taken for independent, and with its clusters."""
    runs, groups, members = changes.shape
    total = groups * members
    gained, lost = (changes > 0).sum((1, 2)), (changes < 0).sum((1, 2))
    mean = changes.mean((1, 2))
    between = groups / (groups - 1) * ((changes.sum(2) - members * mean[:, None]) ** 2).sum(1)
    alone = total / (total - 1) * ((changes - mean[:, None, None]) ** 2).sum((1, 2))
    effects = np.maximum(1, (between + members**2) / (alone + members))
    names = np.repeat(np.arange(groups), members).tolist()
    for run in range(min(runs, JUDGED)):
        assert math.isclose(effects[run], design_effect(changes[run].ravel().tolist(), names), rel_tol=1e-9)
    z = score_z(gained, lost, total, -TOLERANCE)
    return float(np.mean(z > Z)), float(np.mean(z / np.sqrt(effects) > Z))


# ---------------------------------------------------------------------------------------------- the page


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, numbers to the right."""
    lines = ["| " + " | ".join(head) + " |", "|" + "--:|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def percent(share: float) -> str:
    """0.953 → "95"; what is not quite all or nothing is not rounded to it."""
    if 0 < share < 0.005:
        return "<1"
    return ">99" if 0.995 <= share < 1 else f"{100 * share:.0f}"


def characteristics(runs: int) -> str:
    """Promoted / rejected / inconclusive, by discordance, size and true change."""
    rows = []
    for discordance in DISCORDANCES:
        for size in SIZES:
            row = [f"{discordance:.0%}", f"{size:,}"]
            for change in CHANGES:
                random = np.random.default_rng([round(1000 * discordance), size, round(-1000 * change)])
                found = shares(random, runs, size, discordance, change)
                row.append(" / ".join(percent(found[outcome]) for outcome in OUTCOMES))
            rows.append(row)
    changes = [f"{100 * change:g} points".replace("-", "−") if change else "nothing lost" for change in CHANGES]
    return table(["flips", "items", *changes], rows)


def sizing(runs: int) -> str:
    """The smallest sizes, and what a simulation at those sizes gives."""
    rows = []
    for discordance in DISCORDANCES:
        few, usual, many = (smallest_size(discordance, num_kept) for num_kept in (3, KEPT, 15))
        random = np.random.default_rng([round(1000 * discordance), usual])
        promoted = shares(random, runs, usual, discordance, 0.0)["promoted"]
        rejected = shares(random, runs, usual, discordance, CHANGES[-1])["rejected"]
        sizes = [f"{few:,}", f"**{usual:,}**", f"{many:,}", f"{smallest_rejecting(discordance, KEPT):,}"]
        rows.append([f"{discordance:.0%}", *sizes, f"{promoted:.1%}", f"{rejected:.1%}"])
    head = ["flips", "3 kept", f"{KEPT} kept", "15 kept", f"rejection alone ({KEPT})"]
    return table([*head, "promoted (nothing lost)", "rejected (−6 in one)"], rows)


def clusters(runs: int, size: int = 1500, discordance: float = 0.10) -> str:
    """What happens to one family of wordings if its clusters are, and are not, told to the gate."""
    rows = []
    for members in (3, 10):
        for together in (0.0, 0.5, 1.0):
            random, row = np.random.default_rng([members, round(10 * together)]), [f"{members}", f"{together:.0%}"]
            for change in (-TOLERANCE, 0.0):
                shape = (size // members, members)
                found = let_pass(clustered(random, runs, shape, flips(discordance, change), together))
                row += [f"{share:.1%}" for share in found]
            rows.append(row)
    lost, kept = ("−3 points, let pass: clusters not told", "told"), ("nothing lost, let pass: not told", "told")
    return table(["wordings a fact", "facts that flip as one", *lost, *kept], rows)


def main() -> None:
    """Rewrites the part of docs/gate.md between its marks; `--fast` prints it instead, from fewer runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true", help="a tenth of the runs, printed and not written")
    fast = parser.parse_args().fast
    runs = 1_000 if fast else 10_000
    error = 100 * math.sqrt(WANTED * (1 - WANTED) / runs)
    text = f"""
### How many items a family needs

Summed exactly over all outcomes, so that both requirements hold from there on; "rejection alone" is what the second
takes. The last two columns check the sizes in bold by {5 * runs:,} simulated candidates
(standard error {error / math.sqrt(5):.1f} points).

{sizing(5 * runs)}

### How often it errs

Promoted / rejected / inconclusive, in percent of {runs:,} simulated candidates a cell
(standard error {error:.1f} points near 95 or 5, at most {50 / math.sqrt(runs):.1f}).
Each learnt a new skill (150 items). Of five probe families and two earlier skills, all of the size on the left, one
truly changed by the amount on top, the others by nothing; in each, the given share of items flips (at least the amount
on top).

{characteristics(runs)}

### What clusters change

One family of 1,500 wordings, 10% flips, {runs // 4:,} simulations a cell
(standard error {2 * error:.1f} points near 95 or 5): how often it is found kept if it truly lost 3 points
(wanted: at most 5%), and if it lost nothing.

{clusters(runs // 4)}

"""
    page = PAGE.read_text(encoding="utf-8")
    head, _, rest = page.partition(BEGIN)
    if fast:
        print(text)
    else:
        PAGE.write_text(head + BEGIN + "\n" + text + END + rest.partition(END)[2], encoding="utf-8")
        print(PAGE)


if __name__ == "__main__":
    main()
