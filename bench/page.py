"""Writes docs/benchmarks.md and its chart from what run.py has measured."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from selftaught.reports.compose import machine

WARM_UP = 1
NAMES = {
    "selftaught-sdft": "selftaught SDFT",
    "selftaught-sdft-first-epoch": "— in the first epoch, the teacher's prompts still to be run",
    "selftaught-sdft-one-process": "— in one process",
    "selftaught-recipe": "— default recipe, middle of the run (adapters, anchor; two teacher's steps, one student's)",
    "selftaught-sft": "selftaught SFT",
    "trl-sdft": "TRL SDFT, full-vocabulary forward KL",
    "trl-sdft-default": "TRL SDFT, its default loss",
    "trl-sft": "TRL SFT",
}
WORKLOADS = {
    "corpus": "**Quickstart corpus**: batch 16; prompts of 38–50 tokens, teacher's of 245–279, completions of 9–20",
    "tools": "**Tool calls**: batch 8; prompts of 120–343 tokens, teacher's of 163–436, completions of 19–102",
    "long": "**Long and ragged**, synthetic: batch 4; prompts of 64–512 tokens, teacher's to 2,600, answers of 16–256",
}
PARTS = {  # of a step, as both sides name them
    "rollout": ("rollout", "generation"),
    "teacher": ("teacher",),
    "student": ("student", "backward"),
    "loss": ("loss",),
    "optimiser": ("optimiser", "optimizer"),
    "anchor": ("anchor",),
}


class Results:
    """What is in the folder."""

    def __init__(self, work: Path) -> None:
        self.work = work

    def get(self, name: str) -> dict[str, Any] | None:
        """One measurement; None if there is none."""
        path = self.work / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def steps(self, workload: str, contender: str) -> list[dict[str, float]]:
        """The steps of all rounds that count."""
        found: list[dict[str, float]] = []
        for path in sorted(self.work.glob(f"step-{workload}-{contender}-[0-9]*.json")):
            found += json.loads(path.read_text(encoding="utf-8"))["steps"][WARM_UP:]
        return found

    def seconds(self, workload: str, contender: str) -> float | None:
        """Median seconds of a step."""
        steps = self.steps(workload, contender)
        return statistics.median(step["seconds"] for step in steps) if steps else None

    def gib(self, workload: str, contender: str) -> float:
        """Peak memory, the largest of all rounds."""
        paths = self.work.glob(f"step-{workload}-{contender}-[0-9]*.json")
        return max(json.loads(path.read_text(encoding="utf-8"))["peak_memory_gib"] for path in paths)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, numbers to the right."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median (lowest–highest)."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def times(part: float | None, whole: float | None) -> str:
    """A ratio, or nothing where one is missing."""
    return f"{part / whole:.2f}" if part is not None and whole else "–"


def step_section(results: Results, workload: str) -> str:
    """One workload: seconds, parts, tokens and memory of each contender."""
    rows = []
    for contender, name in NAMES.items():
        steps = results.steps(workload, contender)
        if not steps:
            continue
        middle = {
            part: statistics.median(sum(step.get(key, 0.0) for key in keys) for step in steps)
            for part, keys in PARTS.items()
        }
        speed = statistics.median(step["tokens"] / step["seconds"] for step in steps)
        shown = [f"{value:.2f}" if value >= 0.005 else "–" for value in middle.values()]
        gib = f"{results.gib(workload, contender):.1f}"
        rows.append([name, spread([step["seconds"] for step in steps]), *shown, f"{speed:.0f}", gib])
    head = ["seconds a step", "median (range)", *PARTS, "tokens/s", "GiB"]
    return f"{WORKLOADS[workload]}\n\n{table(head, rows)}"


def targets(results: Results) -> str:
    """What we set out to show, and what was measured."""
    rows: list[list[str]] = []

    def ratio(name: str, target: str, over: str, under: str, workloads: Sequence[str] = tuple(WORKLOADS)) -> None:
        found = [times(results.seconds(w, over), results.seconds(w, under)) for w in workloads]
        rows.append([name, target, ", ".join(f"{w} {value}" for w, value in zip(workloads, found, strict=True))])

    ratio("SDFT step / our SFT step", "≤ 2.0", "selftaught-sdft", "selftaught-sft")
    ratio("SDFT step in the first epoch / our SFT step", "", "selftaught-sdft-first-epoch", "selftaught-sft")
    ratio("Default recipe's step / our SFT step", "", "selftaught-recipe", "selftaught-sft", ("corpus",))
    ratio("TRL's SFT step / ours", "≥ 1.0", "trl-sft", "selftaught-sft")
    ratio("TRL's SDFT step / ours", "≥ 3.0, never < 1.5", "trl-sdft", "selftaught-sdft")
    ratio("TRL's SDFT step by its default loss / ours", "", "trl-sdft-default", "selftaught-sdft")
    ratio("TRL's SDFT step / ours in the first epoch", "", "trl-sdft", "selftaught-sdft-first-epoch")
    memory = {name: results.get(f"memory-{name}") for name in ("selftaught-1", "selftaught-2", "trl-32", "trl-4")}
    if all(memory.values()):
        gib = {name: f"{found['peak_memory_gib']:.1f}" for name, found in memory.items() if found}
        rows.append([
            "Peak GiB at batch 32, ours / TRL's", "≤ 0.5",
            f"one process {gib['selftaught-1']}, two {gib['selftaught-2']}; TRL's whole batch at once {gib['trl-32']}, "
            f"in micro-batches of 4 {gib['trl-4']}",
        ])  # fmt: skip
    return table(["", "target", "measured"], rows)


def engine_section(results: Results) -> str:
    """Peak, utilisation, decoding, loss."""
    engine = results.get("engine")
    if engine is None:
        return ""
    used = [
        [f"{one['rows']} × {one['length']}", f"{one['peak_gflops']:.0f}", spread([100 * s for s in one["share"]], 0)]
        for one in engine["utilisation"]
    ]
    text = [
        "## The student's forward and backward, against the processor's peak\n",
        "One process, one thread. Peak: bf16 products of 2048³, measured in turn. FLOPs: 6 a matrix weight and token, "
        "attention not counted.\n",
        table(["rows × tokens", "peak, GFLOP/s", "% of it reached"], used),
        "\n## Decoding, against transformers' `generate`\n",
        "Greedy, ragged prompts, the prompts' own run included.\n",
    ]
    rows = []
    for found in engine["decoding"]:
        seconds, tokens = found["seconds"], found["new_tokens_total"]
        speeds = {name: [count / s for count, s in zip([tokens] * len(v), v)] for name, v in seconds.items()}
        ratio = statistics.median(speeds["selftaught"]) / statistics.median(speeds["generate"])
        rows.append([found["name"], spread(speeds["selftaught"], 0), spread(speeds["generate"], 0), f"{ratio:.2f}"])
    text.append(table(["", "selftaught, tokens/s", "generate, tokens/s", "ratio"], rows))
    text += [
        "\n## The loss and its gradient\n",
        "Forward KL over the whole vocabulary, hidden size 576, both heads and all gradients included; memory beyond "
        "inputs and gradients.\n",
        table(
            ["tokens × vocabulary", "seconds", "extra GiB"],
            [
                [f"{one['tokens']:,} × {one['vocabulary']:,}", spread(one["seconds"][1:]), f"{one['gib']:.2f}"]
                for one in engine["losses"]
            ],
        ),
    ]
    return "\n".join(text)


def growth_section(results: Results) -> str:
    """How a step grows."""
    from run import GROWTH

    rows = []
    for _, name, span in GROWTH:
        found = results.get(f"growth-{name}")
        if found is not None:
            steps = found["steps"][WARM_UP:]
            seconds = [step["seconds"] for step in steps]
            rows.append([f"{name.partition('-')[0]} {span}", spread(seconds), f"{found['peak_memory_gib']:.2f}"])
    if not rows:
        return ""
    return (
        "## How a step grows\n\nSDFT; all but what is named stays at batch 8, prompts of 64 tokens, documents of 256, "
        "completions of 32.\n\n" + table(["", "seconds a step", "GiB"], rows)
    )


def learning_section(results: Results) -> str:
    """Seconds to 50% and to 85% of the quickstart's questions."""
    curves = learning_curves(results)
    if not curves:
        return ""
    rows = [
        [
            name,
            *(f"{value:.0f}" if (value := reached(curve, level)) is not None else best(curve) for level in (0.5, 0.85)),
        ]
        for name, curve in curves.items()
    ]
    return (
        "## Seconds to learn the quickstart's facts\n\nTraining alone, until the direct questions were answered "
        "(linear between evaluations). TRL's: the steps of its run "
        "(the rate of our recipe for all weights, temperature 1, "
        "a schedule of 75 steps; no other rate was tried) times its median seconds "
        "a step above, where completions are shorter than in that run. selftaught's are the vetted recipes.\n\n"
        + table(["", "to 50%", "to 85%"], rows)
    )


def learning_curves(results: Results) -> dict[str, list[tuple[float, float]]]:
    """(seconds, share of direct questions) along each run."""
    curves = {}
    path = results.work / "quickstart" / "report.json"
    if path.exists():
        report = json.loads(path.read_text(encoding="utf-8"))
        for run in report["runs"]:
            if run["name"] in ("sdft", "sft"):
                points = [(point["seconds"], point["accuracy"]["direct"]) for point in run["curve"]]
                curves[f"selftaught {run['label']}"] = [(0.0, 0.0), *points]
    found, step = results.get("learning-trl-accuracy"), results.seconds("corpus", "trl-sdft")
    if found is not None and step:
        points = [(point["step"] * step, point["accuracy"]["direct"]) for point in found["points"]]
        curves["TRL SDFT"] = [(0.0, 0.0), *points]
    return curves


def reached(curve: Sequence[tuple[float, float]], level: float) -> float | None:
    """Where a curve first reaches a level; None if it never does."""
    for (start, low), (end, high) in itertools.pairwise(curve):
        if low < level <= high:
            return start + (end - start) * (level - low) / (high - low)
    return None


def best(curve: Sequence[tuple[float, float]]) -> str:
    """What was reached instead."""
    seconds, share = max(curve, key=lambda point: point[1])
    return f"not reached ({share:.0%} at {seconds:.0f})"


def draw(results: Results, path: Path) -> None:
    """Bars: seconds a step by part, for each contender and workload."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    shown = ("selftaught-sft", "selftaught-sdft", "trl-sft", "trl-sdft")
    figure, axes = plt.subplots(1, len(WORKLOADS), figsize=(11, 3.4), layout="constrained")
    colours = dict(
        zip((*PARTS, "other"), ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377", "#bbbbbb"))
    )
    for axis, workload in zip(axes, WORKLOADS, strict=True):
        for place, contender in enumerate(reversed(shown)):
            steps = results.steps(workload, contender)
            if not steps:
                continue
            whole, left = statistics.median(step["seconds"] for step in steps), 0.0
            parts = {
                part: statistics.median(sum(step.get(key, 0.0) for key in keys) for step in steps)
                for part, keys in PARTS.items()
            }
            parts["other"] = max(0.0, whole - sum(parts.values()))
            for part, value in parts.items():
                axis.barh(place, value, left=left, color=colours[part], label=part if place == 0 else None)
                left += value
            axis.text(left, place, f" {whole:.1f}", va="center", fontsize=9)
        axis.set_yticks(range(len(shown)), [NAMES[c].partition(",")[0] for c in reversed(shown)])
        axis.set_title(workload)
        axis.set_xlabel("seconds a step")
        axis.margins(x=0.15)
        axis.spines[["top", "right"]].set_visible(False)
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in colours.values()]
    figure.legend(handles, colours, loc="outside lower center", ncols=len(colours), frameon=False)
    figure.savefig(path, metadata={"Date": None})


def write_page(work: Path, page: Path) -> None:
    """The page, and the chart beside it."""
    results = Results(work)
    chart = page.with_suffix(".svg")
    draw(results, chart)
    where = machine(1)
    head = (
        "# Benchmarks\n\nWritten by `make bench` (bench/run.py): every contender in a process of its own with all "
        "cores, in turn, in one session. SmolLM2-135M, full weights, float32 masters. The same rows, and every "
        "completion as long as its row's demonstration, so that all do the same work; the first step of each run is "
        "left out. `selftaught SDFT` draws every completion from the student and has no anchor, as in the paper; the "
        "teacher's prompts have been run before, as in every epoch but the first. TRL 1.16.0 runs at the best settings "
        "that we found on a processor: bf16 autocast, micro-batches of 4, one completion a prompt, a frozen teacher, "
        "nothing cut, no checkpointing, the faster of one and two threads and of its attention kernels (for SFT always "
        "sdpa), and glibc's allocator as it comes (tuned as ours it was no faster). Its memory counts from its start, "
        "ours from when the model is loaded.\n\n"
        f"Machine: {where['processor']}, {where['cores']} cores, {where['memory_gib']} GiB; torch {where['torch']}, "
        f"Python {where['python']}. Ratios carry over to other machines better than seconds.\n\n"
        f"![Seconds a step by part]({chart.name})\n\n## Targets\n\n{targets(results)}\n\n## A step\n"
    )
    sections = [head, *(step_section(results, workload) for workload in WORKLOADS)]
    sections += [learning_section(results), engine_section(results), growth_section(results)]
    page.write_text("\n\n".join(section for section in sections if section) + "\n", encoding="utf-8")
