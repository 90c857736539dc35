"""A tiny model that says No, but Yes where it was told to: it has something to learn from a user who wants Yes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from conftest import make_tiny_model

from selftaught.config import LearnConfig, PromptConfig
from selftaught.config_files import load_config
from selftaught.continual.jobs import Job, run_job
from selftaught.continual.use_rows import AGAIN
from selftaught.prompts import teacher_messages
from selftaught.types import Example, Message

NO, YES, TEXT = "No.", "Yes.", "Say yes."


def asked(number: int) -> Example:
    return Example(f"q{number}", (Message("user", f"Is it {number}?"),), NO)


def rows() -> list[Example]:
    """Questions as they are, and as a teacher sees them that is shown a correction, or a remark."""
    found = []
    for number in range(8):
        row = asked(number)
        again = Message("user", AGAIN.format(question=row.question))
        found += [row, replace(row, id=f"{row.id}-again", prompt=(again,))]
        shown = (replace(row, demonstration=YES), replace(row, said=NO, feedback=TEXT))
        for place, one in enumerate(shown):
            found.append(
                replace(row, id=f"{row.id}-{place}", demonstration=YES, prompt=teacher_messages(one, PromptConfig()))
            )
    return found


def settings(steps: int) -> LearnConfig:
    return load_config(
        None,
        [
            *("method=sft", "weights.kind=full", "learning_rate=1e-2", f"steps={steps}", "batch_size=16"),
            *("probes=false", "warmup_steps=2", "guard.repetition=off", "guard.unended=off"),
        ],
    )


def make_obedient_model(folder: Path) -> Path:
    """Taught in seconds; a transformers directory."""
    base = make_tiny_model(folder / "tiny")
    record = run_job(Job("obedient", "obedient", str(base), settings(40), tuple(rows()), suites=()), folder / "run")
    return Path(record["model_dir"])
