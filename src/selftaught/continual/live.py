"""What a lesson under way has come to so far, in a small file beside it: whoever watches may read it at any moment."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selftaught.continual.jobs import Event, Watch
from selftaught.errors import ArtifactError
from selftaught.files import read_json, write_json
from selftaught.ledger.store import now

LIVE_FILE = "live.json"
EVERY_SECONDS = 1.0  # between two writings of one stage
MAX_POINTS = 600  # of the loss; of a longer run every second step is left out, again and again
MAX_SAMPLES = 40  # the first and the newest


class LiveFile:
    """Writes down what happens in a lesson, and passes it on.

    The file is whole at every moment. It cannot end a lesson: where it cannot be written, the lesson goes on.

    Args:
        path: the file; of an interrupted lesson, what it holds is gone on with.
        about: what is taught, to what: shown as it is.
        watch: told everything too.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], watch: Watch = lambda event: None) -> None:
        self._path, self._watch, self._written = path, watch, float("-inf")
        self._told: dict[str, Any] = {"points": [], "samples": []}
        if path.is_file():
            with contextlib.suppress(ArtifactError):
                self._told |= read_json(path)
        self._told |= {**about, "pid": os.getpid(), "started": self._told.get("started", now()), "stage": "beginning"}
        self._write()

    def __call__(self, event: Event) -> None:
        told, values = self._told, event.values
        changed = (told.get("job"), told["stage"], told.get("what")) != (event.job, event.stage, values.get("what"))
        told |= {"job": event.job, "stage": event.stage, "what": values.get("what")}
        if event.stage == "training":
            self._add_step(values)
        elif event.stage == "lift":
            told["lift"] = dict(values)
        if changed or time.monotonic() - self._written >= EVERY_SECONDS:
            self._write()
        self._watch(event)

    def _add_step(self, values: Mapping[str, Any]) -> None:
        """A run that goes on from a checkpoint tells some steps again."""
        step = values["step"]
        told = self._told | {name: values[name] for name in ("step", "steps", "seconds", "seconds_left", "tokens")}
        point = {name: values[name] for name in ("step", "loss", "gap_nats", "anchor_nats")}
        told["points"] = [*(one for one in told["points"] if one["step"] < step), point]
        if len(told["points"]) > MAX_POINTS:
            told["points"] = [*told["points"][:-1:2], point]
        samples = [one for one in told["samples"] if one["step"] < step]
        if values["sample"] is not None:
            samples.append({"step": step, "id": values["sample_id"], "text": values["sample"]})
        told["samples"] = samples if len(samples) <= MAX_SAMPLES else [samples[0], *samples[1 - MAX_SAMPLES :]]
        self._told = told

    def _write(self) -> None:
        with contextlib.suppress(ArtifactError):
            write_json(self._path, {**self._told, "updated": now()})
        self._written = time.monotonic()


def is_running(told: Mapping[str, Any]) -> bool:
    """Whether the process that writes a lesson's file is still there.

    Args:
        told: the file's content.
    """
    try:
        os.kill(int(told["pid"]), 0)
    except (ProcessLookupError, OverflowError, ValueError, KeyError, TypeError):
        return False
    except OSError:  # another user's
        return True
    return True
