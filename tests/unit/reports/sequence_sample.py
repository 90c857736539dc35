"""Records as a sequential experiment leaves them: three skills, two methods, some seeds. The numbers are invented."""

from __future__ import annotations

import copy
import random
from typing import Any

ORDER = ["tools", "medical", "science"]
GROUPS = {"tools": ["simple", "multiple", "live"], "medical": ["coding"], "science": ["physics", "chemistry"]}
PROBES = {"facts": 120, "categories": 100, "arithmetic": 120, "formats": 100, "translation": 120}
LABELS = {"sdft": "SDFT", "sft": "SFT"}
MODEL = {"name": "smollm2-135m", "path": "models/smollm2-135m", "parameters": 134515008, "dtype": "bfloat16"}
BASE = {"tools": 0.05, "medical": 0.22, "science": 0.31}
BASE_PROBES = {"facts": 0.61, "categories": 0.60, "arithmetic": 0.55, "formats": 0.65, "translation": 0.55}
# accuracy on each skill after each stage
TAUGHT = {
    "sdft": [(0.58, 0.23, 0.32), (0.57, 0.46, 0.33), (0.56, 0.45, 0.52)],
    "sft": [(0.60, 0.20, 0.28), (0.38, 0.45, 0.27), (0.27, 0.33, 0.49)],
}
PROBES_LOST = {"sdft": (0.01, 0.02, 0.025), "sft": (0.07, 0.12, 0.16)}
DRIFT = {"sdft": (0.04, 0.07, 0.09), "sft": (0.21, 0.38, 0.52)}


def answers(suite: str, total: int, accuracy: float, noise: random.Random) -> list[dict[str, Any]]:
    """Items with a difficulty of their own, so that models mostly fail at the same ones."""
    groups, hardness = GROUPS.get(suite, [suite]), random.Random(suite)
    rows = []
    for index in range(total):
        correct = 0.7 * hardness.random() + 0.3 * noise.random() < 0.06 + 0.88 * accuracy
        text = f"The right answer to {index}." if correct else f"Something else, said of {index} without much thought."
        rows.append({
            "id": f"{suite}-{index}", "group": groups[index % len(groups)], "completion": text, "correct": correct,
        })  # fmt: skip
    return rows


def record(accuracy: dict[str, float], probes: dict[str, float], total: int, seed: str, **more: Any) -> dict[str, Any]:
    """A run.json, as far as the report reads it."""
    noise = random.Random(seed)
    suites = {
        name: {"kind": "skill", "results": answers(name, total, accuracy[name], noise)} for name in ORDER
    } | {
        name: {"kind": "probe", "results": answers(name, size, probes[name], noise)} for name, size in PROBES.items()
    }  # fmt: skip
    blank = {"method": None, "config": None, "steps": None, "seconds": None, "tokens": None, "processes": None}
    return {"suites": suites, "drift_nats": 0.0, **blank, "peak_memory_gib": None, **more}


def chain(method: str, seed: int, total: int) -> list[dict[str, Any]]:
    """The stages of one method with one seed."""
    records = []
    for stage, skill in enumerate(ORDER):
        noise = random.Random(f"{method}{seed}{stage}")
        accuracy = {n: v + noise.gauss(0, 0.02) for n, v in zip(ORDER, TAUGHT[method][stage], strict=True)}
        probes = {n: v - PROBES_LOST[method][stage] + noise.gauss(0, 0.01) for n, v in BASE_PROBES.items()}
        config = {"method": method, "seed": seed, "epochs": 2, "learning_rate": 1e-4 if method == "sdft" else 3e-5}
        records.append(
            record(
                accuracy, probes, total, f"{method}{seed}{stage}",
                name=f"{method}-{seed}/{skill}", label=f"{LABELS[method]} seed {seed}: {skill}", method=method,
                drift_nats=DRIFT[method][stage] * noise.uniform(0.9, 1.1), config=config, steps=60 + 10 * stage,
                seconds=(150.0 if method == "sdft" else 80.0) * noise.uniform(0.95, 1.05), tokens=21450,
                peak_memory_gib=3.4 if method == "sdft" else 2.7, processes=2,
            )
        )  # fmt: skip
    return records


def experiment(seeds: tuple[int, ...] = (0, 1, 2), total: int = 60, probes: bool = True) -> dict[str, Any]:
    """The arguments of `compose_sequence`, new at each call."""
    found = {
        "order": list(ORDER),
        "base": record(BASE, BASE_PROBES, total, "base", name="base", label="base"),
        "runs": {method: {seed: chain(method, seed, total) for seed in seeds} for method in TAUGHT},
        "labels": dict(LABELS),
        "model": dict(MODEL),
    }
    if not probes:
        for one in [found["base"], *(r for chains in found["runs"].values() for c in chains.values() for r in c)]:
            one["suites"] = {name: suite for name, suite in one["suites"].items() if suite["kind"] == "skill"}
    return copy.deepcopy(found)
