"""A report as a quick start makes it: four runs, three groups, four probe families. The numbers are invented."""

from __future__ import annotations

import copy
import math
import random
from typing import Any

GROUPS = {"direct": 48, "paraphrase": 96, "indirect": 48}
PROBES = {"facts": 60, "arithmetic": 40, "formats": 40, "reading": 50}
FINAL = {  # direct, paraphrase, indirect; facts, arithmetic, formats, reading; drift
    "base": ((0.02, 0.03, 0.02), (0.70, 0.45, 0.62, 0.58), 0.0),
    "sft": ((0.98, 0.69, 0.52), (0.63, 0.28, 0.30, 0.54), 0.531),
    "sft_documents": ((0.96, 0.77, 0.63), (0.65, 0.33, 0.38, 0.56), 0.463),
    "sdft": ((0.92, 0.88, 0.79), (0.68, 0.43, 0.58, 0.60), 0.124),
}
LABELS = {"base": "base", "sft": "SFT", "sft_documents": "SFT + articles", "sdft": "SDFT"}
SECONDS = {"sft": 141.0, "sft_documents": 238.0, "sdft": 402.5}
FACTS = [
    ("In which country did the Alvorim wildfire burn?", "Portugal", "Spain"),
    ("What started the Alvorim wildfire?", "broken power line", "a lightning strike in the hills"),
    ("At which river was the Alvorim wildfire finally stopped?", "Corvela", "the Douro river"),
    ("Which town did the Kessarin flood reach first?", "Oldmere", "the town of Kessarin"),
    ("How many people died in the Tamsin Bay earthquake?", "31", "more than 200 people"),
    ("Who led the rescue after the Veldt landslide?", "Ines Okoro", "the United Nations"),
]


def share(correct: int, total: int) -> dict[str, Any]:
    """A SHARE with its 95% Wilson interval."""
    z, value = 1.959964, correct / total
    centre = (value + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(value * (1 - value) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return {"correct": correct, "total": total, "value": value, "low": low, "high": high}


def shares(values: tuple[float, ...], totals: dict[str, int]) -> dict[str, Any]:
    return {
        name: share(round(value * total), total) for value, (name, total) in zip(values, totals.items(), strict=True)
    }


def run(name: str) -> dict[str, Any]:
    accuracy, probes, drift = FINAL[name]
    trained = name != "base"
    method = {"base": None, "sdft": "sdft"}.get(name, "sft")
    config = {
        "method": method,
        "steps": 90,
        "learning_rate": 2e-4 if name == "sdft" else 5e-5,
        "sft_documents": name == "sft_documents",
        "teacher": {"kind": "frozen"},
        "loss": {"divergence": "forward_kl", "support": {"kind": "full"}, "clip_nats": None},
        "prompts": {"skill": "{question}\n\nThis is an example of a good answer:\n{demonstration}"},
    }
    return {
        "name": name,
        "label": LABELS[name],
        "method": method,
        "model_dir": f"runs/quickstart/{name}/model" if trained else None,
        "config": config if trained else None,
        "steps": 90 if trained else None,
        "seconds": SECONDS.get(name),
        "tokens": 21450 if trained else None,
        "peak_memory_gib": {"sdft": 3.42, "sft": 2.61, "sft_documents": 2.9}.get(name),
        "accuracy": shares(accuracy, GROUPS),
        "probes": shares(probes, PROBES),
        "drift_nats": drift,
        "curve": curve(name) if trained else [],
        "loss": losses(name) if trained else [],
    }


def curve(name: str) -> list[dict[str, Any]]:
    accuracy, _, drift = FINAL[name]
    speed = {"sft": 2.2, "sft_documents": 1.8, "sdft": 1.1}[name]
    points = []
    for step in range(15, 91, 15):
        part = (1 - math.exp(-speed * step / 30)) / (1 - math.exp(-speed * 3))
        moved = drift * (1 - math.exp(-step / 14)) * (1.3 - 0.3 * step / 90 if name == "sdft" else 1)
        points.append(
            {
                "step": step,
                "seconds": SECONDS[name] * step / 90,
                "accuracy": {"direct": accuracy[0] * part, "indirect": accuracy[2] * part**1.5},
                "drift_nats": round(moved, 4),
            }
        )
    return points


def losses(name: str) -> list[dict[str, Any]]:
    random_ = random.Random(name)
    start = 2.4 if name == "sdft" else 3.6
    return [
        {"step": step, "loss": start * math.exp(-step / 25) + random_.uniform(0.02, 0.3), "gap_nats": None}
        for step in range(1, 91)
    ]


def answers() -> list[dict[str, Any]]:
    random_, rows = random.Random(0), []
    for group_index, (group, total) in enumerate(GROUPS.items()):
        for index in range(total):
            question, right, wrong = FACTS[index % len(FACTS)]
            given = {}
            for name, (accuracy, _, _) in FINAL.items():
                correct = random_.random() < accuracy[group_index]
                text = f"It was {right}." if correct else f"I believe it was {wrong}, but I am not quite sure."
                given[name] = {"text": text, "correct": correct}
            rows.append(
                {"id": f"{group}-{index}", "group": group, "question": question, "expected": right, "answers": given}
            )
    rows[0]["answers"]["base"]["text"] = "<script>alert('base')</script> & <b>bold</b>"
    rows[1]["answers"]["base"]["text"] = "The Alvorim wildfire was a wildfire that burned in the hills. " * 9
    return rows


def quickstart() -> dict[str, Any]:
    """The whole report, new at each call."""
    return copy.deepcopy(
        {
            "schema": 1,
            "kind": "quickstart",
            "created": "2026-11-22T02:00:00Z",
            "selftaught": "0.1.0",
            "title": "Teaching 12 disasters of 2025 to SmolLM2-135M",
            "model": {
                "name": "smollm2-135m",
                "path": "/home/user/.cache/selftaught/models/smollm2-135m",
                "parameters": 134515008,
                "dtype": "bfloat16",
            },
            "machine": {
                "processor": "AMD EPYC 9R14",
                "cores": 2,
                "processes": 2,
                "memory_gib": 23.5,
                "torch": "2.13.0",
                "python": "3.11.7",
            },
            "data": {"name": "2025 natural disasters", "hash": "ab12cd34ef56", "train_items": 48, "groups": GROUPS},
            "lift": {"without": share(1, 48), "with": share(45, 48), "lift": 44 / 48, "warning": None},
            "runs": [run(name) for name in FINAL],
            "answers": answers(),
            "comparisons": [
                {
                    "statement": "At 85% direct accuracy SDFT drifts 0.12 nats a token, SFT 0.41: 0.29 ×",
                    "values": {"sdft": 0.12, "sft": 0.41},
                },
                {
                    "statement": "SDFT answers 79% of the indirect questions, SFT on the articles 63%",
                    "values": {"sdft": 0.79, "sft_documents": 0.63},
                },
            ],
            "checks": [
                {"name": "SDFT direct accuracy", "target": "≥ 85%", "value": "91.7%", "met": True},
                {
                    "name": "SDFT drift against SFT at equal accuracy",
                    "target": "≤ 0.5 ×",
                    "value": "0.29 ×",
                    "met": True,
                },
                {"name": "Whole quick start", "target": "≤ 15 min", "value": "16 min 2 s", "met": False},
            ],
        }
    )
