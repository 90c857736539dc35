"""Live progress of jobs in the terminal: one block a job; plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from selftaught.continual import Event
from selftaught.reports import lift_line
from selftaught.reports.reading import contexts_line, documents_lines

LINE_SECONDS = 15.0  # between plain lines of one job


class Progress:
    """Shows events; call it with each.

    Args:
        labels: of the jobs, by name, in order.
        quiet: show nothing (the result is printed as JSON).
    """

    def __init__(self, labels: Mapping[str, str], quiet: bool = False) -> None:
        self._labels = labels
        self._quiet = quiet
        self._stage = dict.fromkeys(labels, "waiting")
        self._values: dict[str, dict[str, Any]] = {name: {} for name in labels}
        self._samples: dict[str, tuple[str, str]] = {}
        self._last_line = dict.fromkeys(labels, 0.0)
        self._console = Console(stderr=True)
        live = self._console.is_terminal and not quiet
        self._live = Live(console=self._console, refresh_per_second=4, get_renderable=self._render) if live else None

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        changed = self._stage.get(event.job) != event.stage
        if event.stage == "training" and event.values:
            self._values[event.job] = event.values
            self._keep_sample(event.job, event.values)
        elif event.stage == "lift":
            self._values[event.job] = dict(event.values)
        elif event.stage in ("measuring", "evaluating", "reading", "asking", "asked", "judging"):
            self._values[event.job] = {**self._values.get(event.job, {}), **event.values}
        self._stage[event.job] = event.stage  # last: the terminal may be drawn at any moment
        if event.stage == "documents" and not self._quiet:
            for line in documents_lines(event.values["records"]):
                self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        elif event.stage == "contexts":
            if (line := contexts_line(event.values["rows"])) and not self._quiet:
                self._console.print(f"Contexts: {line}.", markup=False, highlight=False, soft_wrap=True)
        elif self._live is None and not self._quiet:
            self._print_line(event, changed)

    def _keep_sample(self, job: str, values: Mapping[str, Any]) -> None:
        """One row's answer, seen changing as the model learns."""
        if values["sample"] is not None:
            text = " ".join(values["sample"].split())
            self._samples[job] = (f"step {values['step']}, {values['sample_id']}", text[:160])

    def _print_line(self, event: Event, changed: bool) -> None:
        now = time.monotonic()
        if not changed and now - self._last_line.get(event.job, 0.0) < LINE_SECONDS:
            return
        self._last_line[event.job] = now
        print(f"{self._labels.get(event.job, event.job)}: {self._line(event.job)}", file=sys.stderr, flush=True)

    def _line(self, job: str) -> str:
        stage, values = self._stage[job], self._values.get(job, {})
        if stage == "training" and "loss" in values:
            answer = f"  “{self._samples[job][1]}”" if self._live is None and job in self._samples else ""
            return training_line(values) + answer
        if stage == "lift":
            return lift_line(values)
        if stage == "reading":
            page = f", page {values['page']} of {values['num_pages']}" if values.get("page") else ""
            return f"reading {values['done']} of {values['total']}  {values['name']}{page}"
        if stage == "asking":
            done = f"{values['done']} of {values['total']} pieces"
            left = f"  {minutes(values['seconds_left'])} left" if values.get("seconds_left") is not None else ""
            return f"making questions  {done}  {values['kept']} kept, {values['rejected']} rejected{left}"
        if stage == "judging":
            return f"judging  {values['done']} of {values['total']} answers"
        detail = f" ({values['what']})" if stage == "measuring" and "what" in values else ""
        return stage + detail

    def _render(self) -> Group:
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True, style="bold")
        table.add_column(width=20)
        table.add_column(overflow="fold")
        for job, label in self._labels.items():
            values = self._values.get(job, {})
            done, total = ("step", "steps") if "steps" in values else ("done", "total")
            pages = (values["page"] - 1) / values["num_pages"] if values.get("page") and values["num_pages"] else 0.0
            share = (values.get(done, 0) + pages) / values[total] if values.get(total) else 0.0
            share = 1.0 if self._stage[job] == "done" else share
            table.add_row(label, ProgressBar(total=1.0, completed=share, width=20), self._line(job))
            if job in self._samples and self._stage[job] != "done":
                where, text = self._samples[job]
                table.add_row("", "", Text(f"“{text}” ({where})", style="italic dim"))
        return Group(table)


def minutes(seconds: float) -> str:
    """A time as minutes and seconds, "1:05"."""
    return f"{int(seconds // 60)}:{int(seconds % 60):02}"


def training_line(values: Mapping[str, Any]) -> str:
    """One step in a line: loss, gap, length, speed, time left."""
    seconds = max(values["seconds"], 1e-9)
    parts = [
        f"step {values['step']}/{values['steps']}",
        f"loss {values['loss']:.3f}",
        f"gap {values['gap_nats']:.3f} nats/token" if values.get("gap_nats") is not None else "",
        f"anchor {values['anchor_nats']:.3f}" if values.get("anchor_nats") is not None else "",
        f"length {values['completion_tokens']:.0f}",
        f"{values['tokens'] / seconds:.0f} tokens/s",
        f"{minutes(values['seconds_left'])} left",
    ]
    return "  ".join(part for part in parts if part)
