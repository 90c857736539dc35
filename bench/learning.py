"""Asks saved models the quickstart's questions: how many steps it took TRL to learn them.

selftaught's own curve is in the quickstart's report.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from selftaught.runtime import prepare

prepare()

from selftaught.data.corpora import QUICKSTART_EVENTS, disasters  # noqa: E402  # after the process has been set up
from selftaught.evaluation.runner import accuracy_by_group, evaluate  # noqa: E402
from selftaught.models.load import load_model  # noqa: E402


def main() -> None:
    """Writes {"points": [{"step", "accuracy"}]}."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder with step-N folders")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    args = parser.parse_args()
    asked = [example for example in disasters(QUICKSTART_EVENTS) if example.group != "paraphrase"]
    points = []
    for folder in args.models.glob("step-*"):
        step = int(re.sub(r"\D", "", folder.name))
        shares = accuracy_by_group(evaluate(load_model(folder), asked, 30))
        points.append({"step": step, "accuracy": {group: share["value"] for group, share in shares.items()}})
    points.sort(key=lambda point: point["step"])
    args.out.write_text(json.dumps({"points": points}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
