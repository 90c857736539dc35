"""Trains selftaught's SDFT or SFT for some steps on given rows, and writes what each step took.

The counterpart of trl_worker.py: same rows, same lengths, same output. The package is not changed for
it; its parts are timed from outside.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selftaught.runtime import peak_memory_gib, prepare, reset_peak_memory

prepare()

import torch  # noqa: E402  # after the process has been set up
from lengths import set_lengths  # noqa: E402
from rows import read_rows  # noqa: E402

from selftaught.config_files import load_config  # noqa: E402
from selftaught.models.adapters import trainable  # noqa: E402
from selftaught.models.load import load_model  # noqa: E402
from selftaught.processes import ProcessGroup, num_processes, process_group  # noqa: E402
from selftaught.train import anchor, methods, optim, rollouts, sft, step  # noqa: E402
from selftaught.train.batch import batch_indices  # noqa: E402

PLAIN = ("weights.kind=full", "rollout.teacher_share=0", "loss.teacher_temperature=1", "anchor.rows=0")
"""Self-distillation as the paper has it: every completion is the student's, and nothing else is learned."""


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True, help="file written by rows.py")
    parser.add_argument("--model", required=True, help="transformers directory")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--method", choices=["sdft", "sft"], default="sdft")
    parser.add_argument("--batch-size", type=int, default=16, help="rows an optimiser step")
    parser.add_argument("--steps", type=int, required=True, help="optimiser steps")
    parser.add_argument("--first-step", type=int, default=0, help="where in the run the steps lie (default recipe)")
    parser.add_argument("--of-steps", type=int, default=None, help="length of that run")
    parser.add_argument("--max-completion", type=int, default=37, help="longest completion, in tokens")
    parser.add_argument("--target-length", action="store_true", help="each completion is as long as its row's target")
    parser.add_argument("--temperature", type=float, default=1.0, help="of sampling")
    parser.add_argument(
        "--recipe", choices=["plain", "default"], default="plain", help="plain: no teacher share, no anchor"
    )
    parser.add_argument(
        "--warm-prefixes", action="store_true", help="run the teacher's prompts first, as earlier epochs have"
    )
    parser.add_argument("--processes", type=int, default=0, help="0 is the default: one a core")
    parser.add_argument(
        "--set", action="append", default=[], dest="overrides", help="a setting, as for selftaught learn"
    )
    return parser.parse_args()


class Clock:
    """Seconds of this process by part of a step."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = defaultdict(float)
        self.steps: list[dict[str, Any]] = []
        self._inside: list[list[float]] = []
        self._names: list[str] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What the block takes, without the parts within it."""
        start = time.perf_counter()
        self._inside.append([])
        self._names.append(name)
        try:
            yield
        finally:
            self._names.pop()
            took = time.perf_counter() - start
            self.parts[name] += took - sum(self._inside.pop())
            if self._inside:
                self._inside[-1].append(took)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def run(*arguments: Any, **named: Any) -> Any:
            if "anchor" in self._names:  # which is a part of its own
                return function(*arguments, **named)
            with self.part(name):
                return function(*arguments, **named)

        return run

    def install(self) -> None:
        """Times the parts of a step where the package calls them."""
        rollouts.sample = self.timed("rollout", rollouts.sample)
        rollouts.teacher_hidden = self.timed("teacher", rollouts.teacher_hidden)
        for module in (step, sft):
            module.student_hidden = self.timed("student", module.student_hidden)  # type: ignore[attr-defined]
        step.distillation_loss = self.timed("loss", step.distillation_loss)
        sft.likelihood_loss = self.timed("loss", sft.likelihood_loss)
        torch.Tensor.backward = self.timed("student", torch.Tensor.backward)  # type: ignore[method-assign]
        anchor.Anchor.backward = self.timed("anchor", anchor.Anchor.backward)  # type: ignore[method-assign]
        optim.Optimizer.step = self.timed("optimiser", optim.Optimizer.step)  # type: ignore[method-assign]


def train(args: argparse.Namespace, group: ProcessGroup) -> None:
    """Runs the steps; the first process writes the record."""
    rows = read_rows(args.rows)
    plain = PLAIN if args.recipe == "plain" else ()
    steps = args.of_steps or args.first_step + args.steps
    settings = [f"method={args.method}", f"batch_size={args.batch_size}", f"steps={steps}"]
    settings += [f"rollout.max_new_tokens={args.max_completion}", f"rollout.temperature={args.temperature}"]
    config = load_config(None, [*settings, *plain, *args.overrides]).resolve(len(rows), args.max_completion)
    clock = Clock()
    clock.install()

    student = load_model(args.model, dtype=config.dtype, masters=True)
    reset_peak_memory()
    if args.target_length:
        set_lengths({prompt: len(row.target) for row in rows for prompt in (row.prompt, row.teacher_prompt)})
        student = dataclasses.replace(student, stop_ids=frozenset())
    student = trainable(student, config)
    optimizer = optim.Optimizer(student, config, group)
    method = methods.make_method(student, optimizer, rows, config, group)
    if args.warm_prefixes and isinstance(method, methods.Distillation):
        prompts = method.teacher.prompts([row.teacher_prompt for row in rows])
        for place in range(group.rank, len(rows), group.size):  # those that `dealt` gives this process, but for a few
            prompts.load(prompts.decoder.new_cache(1, len(rows[place].teacher_prompt)), 0, [place])
    for number in range(args.first_step, args.first_step + args.steps):
        indices = batch_indices(len(rows), config.rows_a_step, number, config.seed)
        group.wait()
        clock.parts.clear()
        start, used = time.perf_counter(), time.process_time()
        output = method.step(indices, number)
        seconds = time.perf_counter() - start
        cpu = group.sum(time.process_time() - used)
        clock.steps.append({"seconds": seconds, "cpu_seconds": cpu, "tokens": output.num_tokens, **clock.parts})
    memory = group.sum(peak_memory_gib()) + group.shared_bytes / 2**30
    if group.first:
        result = {
            "steps": clock.steps,
            "peak_memory_gib": memory,
            "processes": group.size,
            "config": config.model_dump(mode="json"),
        }
        args.out.write_text(json.dumps(result, indent=1), encoding="utf-8")


def main() -> None:
    """Starts the processes."""
    import selftaught_worker  # this file as a module, so that the other processes find it

    args = parse_arguments()
    size = num_processes(args.processes, args.batch_size)
    with process_group(size, selftaught_worker.train, args) as group:
        selftaught_worker.train(args, group)


if __name__ == "__main__":
    main()
