"""The training loop: the same for every method. It calls back; it never evaluates or reports itself."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from selftaught.config import LearnConfig
from selftaught.errors import ConfigError, DataError
from selftaught.files import write_text
from selftaught.models.load import LanguageModel, load_model
from selftaught.models.teacher import TeacherModel
from selftaught.prompts import student_prompt, teacher_prompt
from selftaught.train.anchor import Anchor
from selftaught.train.batch import TrainRow, batch_indices
from selftaught.train.checkpoint import latest_checkpoint, save_checkpoint
from selftaught.train.optim import Optimizer, learning_rate
from selftaught.train.rollouts import Rollouts, teacher_share
from selftaught.train.sft import sft_step
from selftaught.train.step import StepOutput, sdft_step
from selftaught.types import Example

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepReport:
    """What a step tells whoever watches.

    Attributes:
        step: number of steps done, from 1.
        steps: number of steps in the whole run.
        loss: what was minimised.
        gap_nats: mean teacher–student divergence a completion token (SDFT); negative log-likelihood (SFT).
        grad_norm: before clipping.
        learning_rate: of this step.
        teacher_share: share of completions that the teacher drew.
        completion_tokens: mean length of the completions learned from.
        anchor_nats: KL(base‖student) a token on the anchor's rows; None without an anchor.
        ended_share: share of rollouts that ended by themselves.
        seconds: training time so far, evaluations and checkpoints left out.
        tokens: completion tokens learned from so far.
        sample_id: row that `sample_ids` answers.
        sample: a completion of this step, as text.
    """

    step: int
    steps: int
    loss: float
    gap_nats: float
    grad_norm: float
    learning_rate: float
    teacher_share: float
    completion_tokens: float
    anchor_nats: float | None
    ended_share: float
    seconds: float
    tokens: int
    sample_id: str
    sample: str


@dataclass
class RunRecord:
    """All that a run reported; saved with each checkpoint, so that a resumed run has the whole story."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    curve: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    tokens: int = 0


@dataclass(frozen=True)
class Callbacks:
    """What the loop calls.

    Attributes:
        on_step: after every step.
        on_evaluate: every `evaluate_every` steps before the last, with the student; what it returns is
            appended to the record's curve beside the step and the seconds.
    """

    on_step: Callable[[StepReport], None] = lambda report: None
    on_evaluate: Callable[[LanguageModel, int], dict[str, Any]] | None = None


def train(
    source: str | Path,
    examples: Sequence[Example],
    config: LearnConfig,
    checkpoints: Path | None = None,
    callbacks: Callbacks | None = None,
) -> tuple[LanguageModel, RunRecord]:
    """Teaches a model, from its start or from the newest checkpoint in `checkpoints`.

    Args:
        source: the model to teach, see `models.resolve.resolve_model`.
        examples: those of split "train" are taught.
        config: of the run.
        checkpoints: folder for checkpoints; None keeps none.
        callbacks: who watches.

    Returns:
        The taught model, in its compute type, and the run's record.

    Raises:
        DataError: nothing to teach, or a prompt does not fit.
        ModelError, TrainingError, ArtifactError: as their names say.
    """
    callbacks = callbacks or Callbacks()
    student = load_model(source, dtype=config.dtype, masters=True)
    config, rows = prepare(examples, student, config)
    student = _with_adapters(student, config)
    optimizer = Optimizer(student, config)
    teacher = TeacherModel(student, config.teacher, config.prefix_cache_mib << 20)
    teacher.start(student, optimizer.masters)
    anchor = Anchor(student, config.anchor, config.seed) if config.method == "sdft" and config.anchor.rows else None
    rollouts = Rollouts(student, teacher, rows, config)
    record, first = RunRecord(), 0
    if checkpoints is not None and (found := latest_checkpoint(checkpoints)) is not None:
        optimizer.load_state(found.tensors)
        teacher.load_state(found.tensors)
        record, first = RunRecord(**found.records), found.step

    for step in range(first, config.total_steps):
        started = time.perf_counter()
        indices = batch_indices(len(rows), config.batch_size, step, config.seed)
        batch = [rows[index] for index in indices]
        # ------------------------------------------------------------------ the one training step
        if config.method == "sdft":
            output = sdft_step(student, teacher, rollouts, optimizer, rows, indices, config, step, anchor)
        else:
            output = sft_step(student, optimizer, batch, config, step)
        # -----------------------------------------------------------------------------------------
        record.seconds += time.perf_counter() - started
        record.tokens += output.num_tokens
        report = _report(student, batch, output, config, step, record)
        record.steps.append({"step": report.step, "loss": report.loss, "gap_nats": report.gap_nats})
        callbacks.on_step(report)
        done = step + 1
        due = config.evaluate_every and done % config.evaluate_every == 0 and done < config.total_steps
        if callbacks.on_evaluate is not None and due:
            values = callbacks.on_evaluate(student, done)
            record.curve.append({"step": done, "seconds": round(record.seconds, 2), **values})
        if checkpoints is not None and (done % config.checkpoint_every == 0 or done == config.total_steps):
            tensors = {**optimizer.state(), **teacher.state()}
            save_checkpoint(checkpoints, done, tensors, asdict(record), config.keep_checkpoints)
    return student, record


def prepare(
    examples: Sequence[Example], model: LanguageModel, config: LearnConfig
) -> tuple[LearnConfig, list[TrainRow]]:
    """Turns the examples to teach into token ids, checks that every one fits, and resolves the configuration.

    Raises:
        DataError: nothing to teach; a row without a demonstration; a prompt that does not fit.
    """
    taught = [example for example in examples if example.split == "train"]
    if not taught:
        raise DataError("nothing to teach: the data has no row of split 'train'")
    demonstrations = [_target(example, model) for example in taught]
    wanted = config.method == "sft" and config.sft_documents
    documents: dict[str, str] = {}  # each once, and the first row that has it
    for example in taught:
        if wanted and example.context:
            documents.setdefault(example.context, example.id)
    config = config.resolve(len(taught) + len(documents), max(map(len, demonstrations)))
    rows = [_row(example, target, model, config) for example, target in zip(taught, demonstrations, strict=True)]
    if wanted:
        if not documents:
            raise ConfigError("sft_documents is set, but no row has a document (a context column)")
        stop = model.tokenizer.eos_token_id
        for number, (document, row) in enumerate(documents.items(), 1):
            target = (*model.tokenizer(document, add_special_tokens=False)["input_ids"], stop)
            if 1 + len(target) > model.max_tokens:
                raise DataError(
                    f"row {row!r}: its document of {len(target)} tokens does not fit the model's {model.max_tokens}"
                )
            rows.append(TrainRow(f"document-{number}", (stop,), (), target))
    return config, rows


def _target(example: Example, model: LanguageModel) -> tuple[int, ...]:
    """The demonstration's tokens and the stop token."""
    if not example.demonstration:
        raise DataError(f"row {example.id!r}: has no demonstration to learn from")
    return (
        *model.tokenizer(example.demonstration, add_special_tokens=False)["input_ids"],
        model.tokenizer.eos_token_id,
    )


def _row(example: Example, target: tuple[int, ...], model: LanguageModel, config: LearnConfig) -> TrainRow:
    tokenizer = model.tokenizer
    prompt = tuple(student_prompt(example, tokenizer))
    room = model.max_tokens - config.completion_limit
    if len(prompt) + len(target) > model.max_tokens or len(prompt) > room:
        raise DataError(f"row {example.id!r}: {len(prompt)} prompt tokens do not fit the model's {model.max_tokens}")
    if config.method != "sdft":
        return TrainRow(example.id, prompt, (), target)
    return TrainRow(example.id, prompt, tuple(teacher_prompt(example, tokenizer, config.prompts, room)), target)


def _with_adapters(student: LanguageModel, config: LearnConfig) -> LanguageModel:
    """The student with LoRA adapters where the configuration asks for them."""
    if config.weights.kind == "full":
        return student
    import dataclasses

    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(config.seed)  # the adapters' start
    targets = config.weights.targets
    lora = LoraConfig(
        r=config.weights.rank,
        lora_alpha=config.weights.alpha,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )
    try:
        model = get_peft_model(student.model, lora, autocast_adapter_dtype=False)
    except ValueError as error:
        raise ConfigError(f"weights.targets: {error}") from error
    return dataclasses.replace(student, model=model.eval())


def _report(
    student: LanguageModel, batch: list[TrainRow], output: StepOutput, config: LearnConfig, step: int, record: RunRecord
) -> StepReport:
    rollouts = output.completions
    sample = student.tokenizer.decode(rollouts[-1].ids, skip_special_tokens=True) if rollouts else ""
    return StepReport(
        step=step + 1,
        steps=config.total_steps,
        loss=output.loss,
        gap_nats=output.gap_nats,
        grad_norm=output.grad_norm,
        learning_rate=learning_rate(config, step),
        teacher_share=teacher_share(config, step) if rollouts else 0.0,
        completion_tokens=output.num_tokens / len(batch),
        anchor_nats=output.anchor_nats,
        ended_share=sum(c.ended for c in rollouts) / len(rollouts) if rollouts else 1.0,
        seconds=record.seconds,
        tokens=record.tokens,
        sample_id=batch[-1].id,
        sample=sample.strip(),
    )


def save_model(model: LanguageModel, path: Path, config: LearnConfig) -> None:
    """Writes a taught model as a plain transformers directory, or a peft adapter directory for LoRA.

    Written whole or not at all, with a manifest of hashes and the run's configuration beside it.
    """
    from selftaught.files import whole_directory

    with whole_directory(path) as draft:
        model.model.save_pretrained(draft)  # type: ignore[operator]
        model.tokenizer.save_pretrained(draft)
        write_text(draft / "selftaught.json", json.dumps({"config": config.model_dump(mode="json")}, indent=2) + "\n")
