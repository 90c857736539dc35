"""Puts the records of jobs together into one report; see docs/report.md for the result."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from selftaught._version import __version__
from selftaught.reports.tables import ended_itself
from selftaught.runtime import memory_gib, num_cores
from selftaught.types import Example

RUN_FIELDS = (
    "name", "label", "method", "model_dir", "config", "steps", "seconds", "tokens",
    "peak_memory_gib", "accuracy", "probes", "drift_nats", "curve", "loss",
)  # fmt: skip


def compose_report(
    kind: str,
    title: str,
    data_name: str,
    data_hash: str,
    examples: Sequence[Example],
    records: Sequence[dict[str, Any]],
    checks: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """A report of several jobs on the same data.

    Args:
        kind: "quickstart" or "learn".
        title: its headline.
        data_name: how to call the data.
        data_hash: of the data.
        examples: what was taught and asked.
        records: of the jobs (see `continual.run_job`), the base's first.
        checks: targets and whether they were met.
    """
    groups: dict[str, int] = {}
    for example in examples:
        groups[example.group] = groups.get(example.group, 0) + 1
    return {
        "schema": 1,
        "kind": kind,
        "created": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "selftaught": __version__,
        "title": title,
        "model": records[0]["model"],
        "machine": machine(max(record.get("processes") or 1 for record in records)),
        "data": {
            "name": data_name,
            "hash": data_hash,
            "train_items": sum(example.split == "train" for example in examples),
            "groups": groups,
        },
        "lift": records[0]["lift"],
        "runs": [{**{f: record[f] for f in RUN_FIELDS}, "stopped": record.get("stopped")} for record in records],
        "answers": _answers(examples, records),
        "comparisons": [*_stopped(records), *_comparisons(records)],
        "checks": list(checks),
    }


def machine(processes: int) -> dict[str, Any]:
    """What this ran on."""
    try:
        torch_version = version("torch")
    except PackageNotFoundError:
        torch_version = "none"
    return {
        "processor": _processor(),
        "cores": num_cores(),
        "processes": processes,
        "memory_gib": round(memory_gib(), 1),
        "torch": torch_version,
        "python": platform.python_version(),
    }


def drift_at_accuracy(record: dict[str, Any], accuracy: float, group: str = "direct") -> float | None:
    """Drift where a run's curve first reaches an accuracy, by linear interpolation; None if it never does.

    The curve starts at accuracy 0 and drift 0, about where the base is.
    """
    before = (0.0, 0.0)
    for point in record["curve"]:
        value, drift = point["accuracy"].get(group), point["drift_nats"]
        if value is None or drift is None:
            continue
        if value >= accuracy:
            if value == before[0]:
                return float(drift)
            part = (accuracy - before[0]) / (value - before[0])
            return float(before[1] + part * (drift - before[1]))
        before = (value, drift)
    return None


def _answers(examples: Sequence[Example], records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    by_run = {record["name"]: {item["id"]: item for item in record["results"]} for record in records}
    return [
        {
            "id": example.id,
            "group": example.group,
            "question": example.question,
            "expected": example.answers[0] if example.answers else example.demonstration or "",
            "answers": {
                name: {"text": items[example.id]["completion"], "correct": items[example.id]["correct"]}
                for name, items in by_run.items()
            },
        }
        for example in examples
    ]


def _stopped(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Which runs ended themselves, and why."""
    return [
        {
            "statement": ended_itself(record["label"], stopped),
            "values": {"run": record["name"], **stopped},
        }
        for record in records
        if (stopped := record.get("stopped"))
    ]


def _comparisons(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """SDFT's drift beside each SFT run's, at the highest direct accuracy that both reached."""
    found = []
    sdft = next((record for record in records if record["method"] == "sdft"), None)
    for other in records:
        if sdft is None or other["method"] != "sft":
            continue
        best = [max((p["accuracy"].get("direct", 0.0) for p in r["curve"]), default=0.0) for r in (sdft, other)]
        level = min(best)
        ours, theirs = drift_at_accuracy(sdft, level), drift_at_accuracy(other, level)
        if ours is None or not theirs:
            continue
        found.append(
            {
                "statement": (
                    f"At {level:.0%} direct accuracy {sdft['label']} had drifted {ours:.3f} nats a token and "
                    f"{other['label']} {theirs:.3f}: {ours / theirs:.2f} times as much."
                ),
                "values": {"run": other["name"], "accuracy": level, "sdft_nats": ours, "other_nats": theirs},
            }
        )
    return found


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
