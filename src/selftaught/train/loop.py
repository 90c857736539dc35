"""The training loop: the same for every method. It calls back; it never evaluates or reports itself."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from selftaught.config import METHOD_LABELS, LearnConfig
from selftaught.errors import ConfigError, TrainingError
from selftaught.files import whole_directory, write_text
from selftaught.models.fast_decoder import make_decoder
from selftaught.models.load import LanguageModel
from selftaught.models.prefill import FreshPrompts
from selftaught.processes import ALONE, ProcessGroup
from selftaught.rollout.sampler import Sampling
from selftaught.rollout.torch_sampler import sample
from selftaught.runtime import peak_memory_gib, release_memory
from selftaught.train.batch import TrainRow, batch_indices
from selftaught.train.checkpoint import latest_checkpoint, save_checkpoint
from selftaught.train.distributed_optim import load_student, make_optimizer
from selftaught.train.guard import trouble, watches
from selftaught.train.methods import Method, make_method
from selftaught.train.optim import AnyOptimizer, learning_rate
from selftaught.train.rollouts import drawn_by_teacher
from selftaught.train.rows import prepare
from selftaught.train.sharded_checkpoint import restore_parts, save_parts
from selftaught.train.step import StepOutput
from selftaught.types import Example

SAMPLE_EVERY = 5  # steps
PACE_STEPS = 8  # from which the time that is left is estimated: the first ones are slower than the rest


@dataclass(frozen=True)
class StepReport:
    """What a step tells whoever watches.

    Attributes:
        step: number of steps done, from 1.
        steps: number of steps in the whole run.
        loss: the distillation loss (SDFT, the anchor's apart) or the cross-entropy (SFT).
        gap_nats: mean teacher–student divergence a completion token (SDFT); negative log-likelihood (SFT); None in a
            step in which only the anchor teaches.
        grad_norm: before clipping.
        learning_rate: of this step.
        teacher_share: 1 if the teacher drew the step's completions, else 0.
        completion_tokens: mean length of the completions learned from.
        anchor_nats: KL(base‖student) a token on the anchor's rows; None without an anchor.
        seconds: training time so far, the anchor's rows included, evaluations and checkpoints left out.
        seconds_left: about how long the rest takes, at the pace of the last steps.
        tokens: completion tokens learned from so far.
        sample_id: the first row, followed through the run.
        sample: the student's present answer to it, every `SAMPLE_EVERY` steps, else None.
    """

    step: int
    steps: int
    loss: float
    gap_nats: float | None
    grad_norm: float
    learning_rate: float
    teacher_share: float
    completion_tokens: float
    anchor_nats: float | None
    seconds: float
    seconds_left: float
    tokens: int
    sample_id: str
    sample: str | None


@dataclass
class RunRecord:
    """All that a run reported; saved with each checkpoint, so that a resumed run has the whole story.

    Attributes:
        steps: of each step its number, loss and signs (see `guard`).
        curve: what `on_evaluate` returned, and when.
        seconds: training time, the anchor's rows included, evaluations and checkpoints left out.
        tokens: completion tokens learned from.
        peak_memory_gib: of all processes.
        stopped: {"at", "kept", "why"} if the run ended itself: after which step, and whose state is kept.
    """

    steps: list[dict[str, Any]] = field(default_factory=list)
    curve: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    tokens: int = 0
    peak_memory_gib: float = 0.0
    stopped: dict[str, Any] | None = None


@dataclass(frozen=True)
class Callbacks:
    """What the loop calls.

    Attributes:
        on_step: after every step, in the first process.
        on_evaluate: every `evaluate_every` steps before the last, with the student, in every process; what
            it returns is appended to the record's curve beside the step and the seconds.
    """

    on_step: Callable[[StepReport], None] = lambda report: None
    on_evaluate: Callable[[LanguageModel, int], dict[str, Any]] | None = None


def train(
    source: str | Path,
    examples: Sequence[Example],
    config: LearnConfig,
    checkpoints: Path | None = None,
    callbacks: Callbacks | None = None,
    processes: ProcessGroup = ALONE,
    rehearse: Sequence[Example] = (),
    origin: str | Path | None = None,
) -> tuple[LanguageModel, RunRecord]:
    """Teaches a model, from its start or from the newest checkpoint in `checkpoints`.

    Args:
        source: the model to teach, see `models.resolve.resolve_model`.
        examples: those of split "train" are taught.
        config: of the run.
        checkpoints: folder for checkpoints; None keeps none.
        callbacks: who watches.
        processes: who train it together; all must call this. The result is that of one process, up to
            rounding; with as many processes it is the same bit for bit.
        rehearse: of earlier skills; self-distillation holds the student to what it now says to their prompts.
        origin: the model before it was taught anything, to which self-distillation holds the student on general
            prompts; None is `source`.

    Returns:
        The taught model, in its compute type, and the run's record.

    Raises:
        ConfigError: the method is oracle retrieval, which changes no weight.
        DataError: nothing to teach, or a prompt does not fit.
        TrainingError: a loss is not finite, or the guard ended the run and no checkpoint is there to keep.
        ModelError, ArtifactError: as their names say.
    """
    if not config.teaches:
        raise ConfigError(f"method: {METHOD_LABELS[config.method]} teaches nothing; measure it with `learn`")
    callbacks = callbacks or Callbacks()
    student = load_student(source, config, processes)
    config, rows = prepare(examples, student, config)
    optimizer = make_optimizer(student, config, processes)
    release_memory()  # the weights as they were loaded
    started = time.perf_counter()
    origin = None if origin == source else origin
    method = make_method(student, optimizer, rows, config, processes, rehearse, origin, examples)
    record, first = RunRecord(seconds=time.perf_counter() - started), 0
    if checkpoints is not None:
        record, first = _restored(checkpoints, optimizer, method, processes) or (record, first)
    release_memory()
    paces: deque[float] = deque(maxlen=PACE_STEPS)  # seconds
    for step in range(first, config.total_steps):
        started = time.perf_counter()
        indices = batch_indices(len(rows), config.rows_a_step, step, config.seed)
        # ------------------------------------------------------------------ the one training step
        output = method.step(indices, step)
        # -----------------------------------------------------------------------------------------
        paces.append(time.perf_counter() - started)
        record.seconds += paces[-1]
        record.tokens += output.num_tokens
        done = step + 1
        record.steps.append(_signs(output, done))
        answer = _answer(student, rows[0], config, processes) if _is_shown(config, step) else None
        if processes.first:
            callbacks.on_step(_report(rows[0], answer, output, config, step, record, fmean(paces)))
        if (why := trouble(record.steps, config.guard)) is not None:
            record = _stopped(checkpoints, optimizer, method, done, why, processes)
            break
        due = config.evaluate_every and done % config.evaluate_every == 0 and done < config.total_steps
        if callbacks.on_evaluate is not None and due:
            with student.whole() as whole:
                values = callbacks.on_evaluate(whole, done)
            record.curve.append({"step": done, "seconds": round(record.seconds, 2), **values})
            release_memory()
        if checkpoints is not None and _checkpoint_due(config, done):
            _save(checkpoints, done, optimizer, method, record, processes)
    record.peak_memory_gib = processes.sum(peak_memory_gib()) + processes.shared_bytes / 2**30
    optimizer.close()
    return student.gathered(), record


def _checkpoint_due(config: LearnConfig, done: int) -> bool:
    """Every so often, at the end, and when the guard begins to look: it needs something to go back to."""
    guarded = done == config.guard.window and watches(config.guard)
    return guarded or done % config.checkpoint_every == 0 or done == config.total_steps


def _signs(output: StepOutput, step: int) -> dict[str, Any]:
    """What the record keeps of a step, and the guard looks at."""
    signs = {"step": step, "loss": output.loss, "gap_nats": output.gap_nats, "anchor_nats": output.anchor_nats}
    if output.repetition is None:
        return signs
    return {**signs, "repetition": output.repetition, "unended": 1 - output.num_ended / output.num_rows}


def _stopped(
    checkpoints: Path | None, optimizer: AnyOptimizer, method: Method, step: int, why: str, processes: ProcessGroup
) -> RunRecord:
    """Goes back to the newest checkpoint, which was written before a bound was crossed.

    Raises:
        TrainingError: there is none.
    """
    found = None if checkpoints is None else _restored(checkpoints, optimizer, method, processes)
    if found is None:
        raise TrainingError(
            f"step {step}: {why}, and there is no checkpoint to keep; lower learning_rate, give a folder for "
            "checkpoints, or raise the guard's bound"
        )
    record, kept = found
    record.stopped = {"at": step, "kept": kept, "why": why}
    return record


def _restored(
    checkpoints: Path, optimizer: AnyOptimizer, method: Method, processes: ProcessGroup
) -> tuple[RunRecord, int] | None:
    """Goes back to the newest checkpoint; what had been reported by then, and the number of steps done."""
    if processes.distributed:
        tensors = {**optimizer.state(), **method.state()}
        parts = restore_parts(checkpoints, tensors, processes)
        if parts is None:
            return None
        step, records = parts
    else:
        found = latest_checkpoint(checkpoints)
        if found is None:
            return None
        step, tensors, records = found.step, found.tensors, found.records
    optimizer.load_state(tensors)
    method.load_state(tensors)
    return RunRecord(**records), step


def _save(
    checkpoints: Path,
    step: int,
    optimizer: AnyOptimizer,
    method: Method,
    record: RunRecord,
    processes: ProcessGroup,
) -> None:
    """Writes a checkpoint after `step` steps: the first process, or each its part."""
    tensors, keep = {**optimizer.state(), **method.state()}, optimizer.config.keep_checkpoints
    if processes.distributed:
        save_parts(checkpoints, step, tensors, asdict(record), keep, processes)
    elif processes.first:
        save_checkpoint(checkpoints, step, tensors, asdict(record), keep)
    processes.wait()  # the tensors are shared, and the next step changes them


def _is_shown(config: LearnConfig, step: int) -> bool:
    """Whether the student is asked the first row after a step (0-based)."""
    return step % SAMPLE_EVERY == 0 or step + 1 == config.total_steps


def _report(
    followed: TrainRow,
    answer: str | None,
    output: StepOutput,
    config: LearnConfig,
    step: int,
    record: RunRecord,
    pace: float,
) -> StepReport:
    return StepReport(
        step=step + 1,
        steps=config.total_steps,
        loss=output.loss,
        gap_nats=output.gap_nats,
        grad_norm=output.grad_norm,
        learning_rate=learning_rate(config, step),
        teacher_share=float(config.distils and drawn_by_teacher(config, step)),
        completion_tokens=output.num_tokens / output.num_rows,
        anchor_nats=output.anchor_nats,
        seconds=record.seconds,
        seconds_left=pace * (config.total_steps - step - 1),
        tokens=record.tokens,
        sample_id=followed.id,
        sample=answer,
    )


def _answer(student: LanguageModel, row: TrainRow, config: LearnConfig, processes: ProcessGroup) -> str | None:
    """What the student says to a row now, at its likeliest, in the first process: drawing it changes nothing."""
    with student.whole() as whole:
        if not processes.first:
            return None
        prompt = FreshPrompts(make_decoder(whole), [row.prompt])
        (completion,) = sample(prompt, Sampling(config.completion_limit, temperature=0.0))
    text: str = student.tokenizer.decode(completion.ids, skip_special_tokens=True)
    return text.strip()


def save_model(model: LanguageModel, path: Path, config: LearnConfig) -> None:
    """Writes a taught model as a plain transformers directory, or a peft adapter directory for LoRA.

    Written whole or not at all, with a manifest of hashes and the run's configuration beside it.
    """
    with whole_directory(path) as draft:
        # peft would look for changed embeddings beside a base that may be an adapter; none of ours touches them
        options = {"save_embedding_layers": False} if hasattr(model.model, "peft_config") else {}
        model.model.save_pretrained(draft, **options)  # type: ignore[operator]
        model.tokenizer.save_pretrained(draft)
        write_text(draft / "selftaught.json", json.dumps({"config": config.model_dump(mode="json")}, indent=2) + "\n")
