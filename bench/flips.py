"""Which share of the probes' answers each lesson of a sequential experiment flipped: the table in docs/gate.md.

python bench/flips.py runs/sequential
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import fmean

Answers = dict[str, dict[str, bool]]
"""Of each probe family, whether each item was answered right."""


def answers(folder: Path) -> Answers:
    """What a measured model said."""
    suites = json.loads((folder / "run.json").read_text(encoding="utf-8"))["suites"]
    return {
        name: {item["id"]: item["correct"] for item in suite["results"]}
        for name, suite in suites.items()
        if suite["kind"] == "probe"
    }


def main() -> None:
    """Prints a row for each method and stage, the mean of its seeds."""
    out = Path(sys.argv[1])
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    base = answers(out / "base")
    print("| lesson |", *(f"{family} |" for family in base))
    for method, label in report["labels"].items():
        chains = []
        for seed in report["seeds"]:
            stages = [answers(out / f"{method}-{seed}" / f"{n}-{name}") for n, name in enumerate(report["order"], 1)]
            chains.append([base, *stages])
        for stage, name in enumerate(report["order"], 1):
            shares = [
                fmean(fmean(chain[stage][f][i] != chain[stage - 1][f][i] for i in base[f]) for chain in chains)
                for f in base
            ]
            print(f"| {'then ' if stage > 1 else ''}{name} by {label} |", *(f"{share:.0%} |" for share in shares))


if __name__ == "__main__":
    main()
