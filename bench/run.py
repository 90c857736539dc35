"""Runs the whole benchmark and writes docs/benchmarks.md and its chart: `make bench`.

Everything is measured in this one session, contenders in turn (A B C A B C …), each in a process of its
own that has the machine's cores to itself. What is done is kept in --work, so that an interrupted run
goes on where it was; delete that folder to measure anew.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
WARM_UP = 1  # first steps of a run that do not count: they load, allocate and fill caches


@dataclass(frozen=True)
class Workload:
    """Rows, and how much of them a step takes."""

    name: str
    rows: tuple[str, ...]  # arguments of rows.py
    batch_size: int
    trl_attention: str  # the faster one for rows of this length


WORKLOADS = (
    Workload("corpus", ("corpus",), 16, "eager"),
    Workload("tools", ("tools", "--limit", "64"), 8, "sdpa"),
    Workload("long", ("synthetic", "--limit", "16"), 4, "sdpa"),
)
STEPS, MIDDLE = 30, 15  # of the quickstart: one of the three steps that count has the student's rollouts
LONGEST = "256"  # completion tokens; each row's is as long as its demonstration


class Bench:
    """What is measured, where it is kept, and with which interpreters."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.work: Path = args.work
        self.work.mkdir(parents=True, exist_ok=True)
        self.trl = self.work / "trl" / "bin" / "python" if args.trl is None else args.trl

    def run(self, name: str, command: Sequence[object], **environment: str) -> dict[str, Any]:
        """Runs a command that writes `name`.json, unless that is there; returns it."""
        path = self.work / f"{name}.json"
        if not path.exists():
            draft = self.work / f"{name}.part"
            print(name, flush=True)
            words = [str(word) for word in (*command, "--out", draft)]
            subprocess.run(words, check=True, env={**os.environ, **environment})
            draft.replace(path)
        return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]

    def model(self) -> str:
        """The model as a transformers directory, which TRL needs."""
        from selftaught.models.resolve import resolve_model

        return str(resolve_model(self.args.model))

    def prepare_trl(self) -> None:
        """Makes TRL's own environment; torch is the release that this one has."""
        folder = self.trl.parent.parent
        if self.args.no_trl or self.args.trl is not None or (folder / "ready").exists():
            return
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [self.trl, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "torch==2.13.0"], check=True)
        subprocess.run([*pip, "-r", HERE / "requirements-trl.txt"], check=True)
        (folder / "ready").touch()  # an install that was interrupted is done again

    # ---------------------------------------------------------------------------------------- stages

    def engine(self) -> dict[str, Any]:
        """Peak, utilisation, decoding, loss."""
        command = [sys.executable, HERE / "engine.py", "--model", self.model(), "--rounds", self.args.rounds + 2]
        return self.run("engine", command, OMP_NUM_THREADS="1")

    def steps(self) -> None:
        """Seconds of a step: every workload, every contender, in turn."""
        for workload in WORKLOADS:
            rows = self.rows_file(workload)
            for number in range(self.args.rounds):
                for name, command in self.contenders(workload, rows, number).items():
                    self.run(f"step-{workload.name}-{name}-{number}", command)

    def rows_file(self, workload: Workload) -> Path:
        """The workload's rows, made once."""
        path = self.work / f"rows-{workload.name}.json"
        if not path.exists():
            command = [sys.executable, HERE / "rows.py", *workload.rows, "--model", self.model(), "--out", path]
            subprocess.run([str(word) for word in command], check=True)
        return path

    def contenders(self, workload: Workload, rows: Path, number: int) -> dict[str, list[object]]:
        """Commands, by contender, of one round (0-based)."""
        common = ["--rows", rows, "--model", self.model(), "--batch-size", workload.batch_size]
        common += ["--max-completion", LONGEST, "--target-length", "--steps", WARM_UP + self.args.steps]
        ours = [sys.executable, HERE / "selftaught_worker.py", *common]
        found: dict[str, list[object]] = {
            "selftaught-sdft": [*ours, "--method", "sdft", "--warm-prefixes"],
            "selftaught-sdft-first-epoch": [*ours, "--method", "sdft"],
            "selftaught-sft": [*ours, "--method", "sft"],
        }
        if workload.name == "corpus":
            found["selftaught-sdft-one-process"] = [*ours, "--method", "sdft", "--warm-prefixes", "--processes", 1]
            found["selftaught-recipe"] = [
                *(word for word in ours if word != "--target-length"),
                *("--method", "sdft", "--warm-prefixes", "--recipe", "default", "--temperature", 0.3),
                *("--max-completion", 30),
                *("--of-steps", STEPS, "--first-step", MIDDLE),
            ]
        if not self.args.no_trl:
            attention = ["--attention", workload.trl_attention]
            threads = ["--threads", self.args.trl_threads]
            theirs = [self.trl, HERE / "trl_worker.py", *common, *threads]
            found["trl-sdft"] = [*theirs, *attention, "--method", "sdft", "--mode", "full"]
            if number == 0 and workload.name == "corpus":
                found["trl-sdft-default"] = [*theirs, *attention, "--method", "sdft", "--mode", "default"]
            found["trl-sft"] = [*theirs, "--method", "sft"]
        return found

    def memory(self) -> None:
        """Peak memory at batch 32: ours, TRL's whole batch at once, and TRL's in micro-batches of 4."""
        workload = WORKLOADS[0]
        common = ["--rows", self.rows_file(workload), "--model", self.model(), "--batch-size", 32]
        common += ["--max-completion", LONGEST, "--target-length", "--steps", 2]
        ours = [sys.executable, HERE / "selftaught_worker.py", *common]
        for processes in (1, 2):
            self.run(f"memory-selftaught-{processes}", [*ours, "--processes", processes])
        if not self.args.no_trl:
            theirs = [self.trl, HERE / "trl_worker.py", *common, "--threads", self.args.trl_threads]
            for micro in (32, 4):
                self.run(f"memory-trl-{micro}", [*theirs, "--micro-batch", micro])

    def growth(self) -> None:
        """How a step grows with the batch, the completions and the teacher's context."""
        ours = [sys.executable, HERE / "selftaught_worker.py", "--model", self.model(), "--target-length"]
        ours += ["--steps", WARM_UP + 2, "--warm-prefixes", "--max-completion", 256]
        for kind, name, span in GROWTH:
            spans = {"prompt": 64, "context": 256, "target": 32, "batch": 8, kind: span}
            path = self.work / f"rows-{name}.json"
            if not path.exists():
                exact = [f"--{part}-tokens={spans[part]}:{spans[part]}" for part in ("prompt", "context", "target")]
                make = [sys.executable, HERE / "rows.py", "synthetic", "--limit", spans["batch"], *exact]
                subprocess.run([str(w) for w in (*make, "--model", self.model(), "--out", path)], check=True)
            self.run(f"growth-{name}", [*ours, "--rows", path, "--batch-size", spans["batch"]])

    def learning(self) -> None:
        """How soon the quickstart's facts are learned: our own curves, and the models that TRL's run leaves."""
        out = self.work / "quickstart"
        if not (out / "report.json").exists():
            print("learning", flush=True)
            resume = ["--resume"] if out.exists() else []
            command = [sys.executable, "-m", "selftaught", "quickstart", "--model", self.args.model]
            subprocess.run([*command, "--out", str(out), *resume], check=True)
        if self.args.no_trl:
            return
        models = self.work / "trl-models"
        theirs = [self.trl, HERE / "trl_worker.py", "--rows", self.rows_file(WORKLOADS[0]), "--model", self.model()]
        theirs += ["--method", "sdft", "--mode", "full", "--max-completion", 30, "--attention", "eager"]
        theirs += ["--steps", 75, "--save-every", 15, "--save-dir", models, "--threads", self.args.trl_threads]
        self.run("learning-trl", theirs)
        self.run("learning-trl-accuracy", [sys.executable, HERE / "learning.py", "--models", models])


GROWTH = [
    (kind, f"{kind}-{span}", span)
    for kind, spans in {
        "batch": (4, 8, 16, 32),
        "target": (16, 64, 128, 256),
        "context": (256, 512, 1024, 2048),
    }.items()
    for span in spans
]
"""(what grows, name, how much): the rest stays at prompt 64, context 256, completion 32 tokens, batch 8."""


def main() -> None:
    """Measures what is not measured yet, then writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--work", type=Path, default=Path("runs/bench"), help="folder for what is measured")
    parser.add_argument("--rounds", type=int, default=3, help="how often each contender has its turn")
    parser.add_argument("--steps", type=int, default=3, help="steps of a turn that count")
    parser.add_argument("--no-trl", action="store_true", help="leave TRL out")
    parser.add_argument("--trl", type=Path, default=None, help="a python that has bench/requirements-trl.txt")
    parser.add_argument("--trl-threads", type=int, default=os.cpu_count(), help="TRL's best number of threads")
    parser.add_argument("--page", type=Path, default=HERE.parent / "docs" / "benchmarks.md")
    args = parser.parse_args()
    bench = Bench(args)
    bench.prepare_trl()
    bench.engine()
    bench.steps()
    bench.memory()
    bench.growth()
    bench.learning()
    from page import write_page

    write_page(bench.work, args.page)


if __name__ == "__main__":
    main()
