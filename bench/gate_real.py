"""How often the gate errs on real flips: `python bench/gate_real.py WORKSPACE VERSION`.

A version and its parent have answered the same probes. Which items flipped, and which wordings of a fact flipped
together, is real; only the direction is drawn anew, fact by fact, so that by construction nothing is lost on average.
Then, in one family after the other, right answers are made wrong until it has truly lost 6 points. Both are judged
many times.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from selftaught.continual.workspace import Workspace
from selftaught.ledger.gate import Comparison, judge

Answers = dict[str, dict[str, bool]]  # by family, then by item: right?


def read(workspace: Workspace, name: str) -> tuple[Answers, Answers, dict[str, dict[str, str]]]:
    """The parent's answers and the version's to all probes, and the items' clusters."""
    ledger = workspace.ledger
    version = ledger.version(name)
    parent = ledger.version(f"v{version.parent}")
    old = {(one.suite, one.items_hash): one for one in ledger.evaluations(parent)}
    before: Answers = {}
    after: Answers = {}
    clusters: dict[str, dict[str, str]] = {}
    for one in ledger.evaluations(version):
        if one.kind == "probe" and (one.suite, one.items_hash) in old:
            rows = workspace.results(old[one.suite, one.items_hash])
            before[one.suite] = {row["id"]: row["correct"] for row in rows}
            clusters[one.suite] = {row["id"]: row["cluster"] for row in rows}
            after[one.suite] = {row["id"]: row["correct"] for row in workspace.results(one)}
    return before, after, clusters


def redrawn(
    rng: random.Random, before: Mapping[str, bool], after: Mapping[str, bool], clusters: Mapping[str, str]
) -> tuple[dict[str, bool], dict[str, bool]]:
    """Both models' answers, exchanged in every other fact: the flips are real, and neither model is better."""
    swap: dict[str, bool] = defaultdict(lambda: rng.random() < 0.5)
    pairs = {
        item: (after[item], before[item]) if swap[clusters[item]] else (before[item], after[item]) for item in before
    }
    return {item: pair[0] for item, pair in pairs.items()}, {item: pair[1] for item, pair in pairs.items()}


def worsened(
    rng: random.Random, before: Mapping[str, bool], after: Mapping[str, bool], points: float
) -> dict[str, bool]:
    """Answers with as many right ones made wrong as lose so many points on average."""
    kept = [item for item in after if after[item] and before[item]]
    share = points / 100 * len(after) / len(kept)
    return {item: right and not (before[item] and rng.random() < share) for item, right in after.items()}


def main() -> None:
    """Prints the shares of outcomes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("version")
    parser.add_argument("--draws", type=int, default=400)
    args = parser.parse_args()
    before, after, clusters = read(Workspace.open(args.workspace), args.version)
    for name, old in before.items():
        flips = sum(old[item] != after[name][item] for item in old)
        change = sum(after[name].values()) - sum(old.values())
        print(f"{name:<12} {len(old):5} items, {flips / len(old):.1%} flipped, {100 * change / len(old):+.1f} points")
    rng = random.Random(0)
    print(f"{args.draws} draws each: promoted / rejected / inconclusive")
    for worse in (None, *before):
        outcomes: Counter[str] = Counter()
        for _ in range(args.draws):
            comparisons = []
            for name in before:
                old, new = redrawn(rng, before[name], after[name], clusters[name])
                new = worsened(rng, old, new, 6) if name == worse else new
                comparisons.append(Comparison(name, "probe", old, new, clusters[name]))
            outcomes[judge(comparisons).outcome] += 1
        shares = " / ".join(f"{outcomes[one] / args.draws:.1%}" for one in ("promoted", "rejected", "inconclusive"))
        print(f"{'nothing lost' if worse is None else f'6 points lost in {worse}':<32} {shares}")


if __name__ == "__main__":
    main()
