"""Trains TRL's SDFTTrainer or SFTTrainer on a file of rows, and writes what each step took.

Runs in an environment of its own (requirements-trl.txt) and imports nothing of selftaught. TRL's code is
used as it is: subclasses only start and stop clocks around its methods, hand it the teacher prompt that is
in the file, and, where asked, fix how long completions are. Both sides see the same rows in the same order:
before training, every prompt is tokenised by TRL and compared with the ids in the file.

    python trl_worker.py --rows rows.json --model DIR --method sdft --mode full --steps 4 --out out.json
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import importlib.metadata
import json
import os
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Row = dict[str, Any]

PRECISIONS = {  # how the weights are held, and whether TRL computes in bfloat16 by autocast
    "float32": ("float32", False),
    "autocast": ("float32", True),  # TRL's default
    "bf16": ("bfloat16", False),  # most updates at usual learning rates are lost to rounding
    "bf16-autocast": ("bfloat16", True),
}
DISTILLATION = {  # --mode; TRL's own default is Jensen-Shannon over the student's 100 likeliest tokens
    "full": {"distillation_mode": "full_logits", "distillation_alpha": 0.0, "distillation_is_clip": None},
    "default": {},
}


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train with TRL and write what each step took.")
    parser.add_argument("--rows", type=Path, required=True, help="file written by rows.py")
    parser.add_argument("--model", type=Path, required=True, help="transformers directory")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--method", choices=["sdft", "sft"], default="sdft")
    parser.add_argument("--mode", choices=list(DISTILLATION), default="full", help="forward KL, or TRL's default loss")
    parser.add_argument("--batch-size", type=int, default=16, help="rows an optimiser step")
    parser.add_argument("--micro-batch", type=int, default=4, help="rows a forward and backward pass")
    parser.add_argument("--steps", type=int, required=True, help="optimiser steps")
    parser.add_argument("--max-completion", type=int, default=37, help="longest completion, in tokens")
    lengths = parser.add_mutually_exclusive_group()
    lengths.add_argument("--fixed-length", action="store_true", help="completions are exactly --max-completion long")
    lengths.add_argument("--target-length", action="store_true", help="completions are exactly as long as targets")
    parser.add_argument("--temperature", type=float, default=1.0, help="of sampling, and of both sides of TRL's loss")
    parser.add_argument("--learning-rate", type=float, default=1.2e-4, help="peak")
    parser.add_argument("--schedule", choices=["cosine", "constant"], default="cosine")
    parser.add_argument("--warmup-steps", type=int, default=5)
    parser.add_argument("--precision", choices=list(PRECISIONS), default="autocast")
    parser.add_argument("--attention", default="sdpa", help="sdpa, or eager: quicker up to some 400 tokens of prompt")
    parser.add_argument("--keep-memory", action="store_true", help="glibc keeps freed memory, as selftaught sets it")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=int, default=0, help="steps between saved models; 0 is never")
    parser.add_argument("--save-dir", type=Path, default=None, help="gets a folder step-N for each")
    args = parser.parse_args()
    if args.save_every and args.save_dir is None:
        parser.error("--save-every needs --save-dir")
    args.micro_batch = min(args.micro_batch, args.batch_size)
    if args.batch_size % args.micro_batch:
        parser.error("--micro-batch must divide --batch-size")
    return args


def prepare_process(args: argparse.Namespace) -> None:
    """Sets threads and allocator; call it before torch is imported."""
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.update(TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1", TRL_EXPERIMENTAL_SILENCE="1")
    if args.keep_memory:
        libc = ctypes.CDLL("libc.so.6")
        for parameter, value in ((-3, 32 << 20), (-1, (1 << 31) - 1), (-2, 64 << 20)):  # mmap, trim, pad
            libc.mallopt(parameter, value)


# --------------------------------------------------------------------------------------------- clocks


class Record:
    """What each step took: seconds in all, on the processor and by part, and completion tokens."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.tokens = 0
        self.loss = 0.0
        self._parts: dict[str, float] = defaultdict(float)
        self._start = 0.0
        self._cpu_start = 0.0

    @contextlib.contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Adds the seconds spent inside to a part of this step."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._parts[part] += time.perf_counter() - start

    def begin(self) -> None:
        """Starts a step."""
        self.tokens, self.loss = 0, 0.0
        self._parts.clear()
        self._start, self._cpu_start = time.perf_counter(), time.process_time()

    def end(self) -> None:
        """Ends a step."""
        seconds, cpu = time.perf_counter() - self._start, time.process_time() - self._cpu_start
        parts = dict(self._parts)
        forwards = parts.get("student", 0.0) + parts.get("teacher", 0.0)
        parts["loss"] = parts.pop("compute_loss", 0.0) - forwards
        parts["other"] = seconds - sum(parts.values())
        counts = {"tokens": self.tokens, "mean_loss": self.loss}
        self.steps.append({"seconds": seconds, "cpu_seconds": cpu, **counts, **parts})


def clocked(trainer_class: type, record: Record, save_every: int, save_dir: Path | None) -> type:
    """A trainer whose steps are timed, from one step's end to the next; saving a model is not counted."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            record.begin()

        def on_step_end(self, _args: Any, state: Any, _control: Any, **kwargs: Any) -> None:
            record.end()
            if save_dir is not None and save_every and state.global_step % save_every == 0:
                folder = save_dir / f"step-{state.global_step}"
                kwargs["model"].save_pretrained(folder)
                kwargs["processing_class"].save_pretrained(folder)
            record.begin()

    class Clocked(trainer_class):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(callbacks=[Clock()], **options)
            self.accelerator.backward = self._timed("backward", self.accelerator.backward)
            self.accelerator.clip_grad_norm_ = self._timed("optimizer", self.accelerator.clip_grad_norm_)

        def _timed(self, part: str, function: Any) -> Any:
            @functools.wraps(function)
            def run(*args: Any, **kwargs: Any) -> Any:
                with record.timed(part):
                    return function(*args, **kwargs)

            return run

        def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
            optimizer = super().create_optimizer(*args, **kwargs)
            optimizer.step = self._timed("optimizer", optimizer.step)
            return optimizer

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            with record.timed("compute_loss"):
                return super().compute_loss(*args, **kwargs)

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().training_step(*args, **kwargs)
            record.loss += loss.item()
            return loss

    return Clocked


# ------------------------------------------------------------------------------------------- trainers


def sdft_trainer(args: argparse.Namespace, rows: list[Row], record: Record) -> Any:
    """TRL's SDFTTrainer with a frozen teacher and one completion a prompt."""
    import torch
    from datasets import Dataset
    from trl.experimental.sdft import SDFTConfig, SDFTTrainer
    from trl.experimental.sdft.sdft_trainer import DemonstrationTeacherContextBuilder

    class TeacherPrompts(DemonstrationTeacherContextBuilder):
        """The whole teacher conversation is in the row: TRL's template has no place for text around the prompt."""

        def _compose_teacher_prompt(self, _prompt: Any, privileged_context: Any) -> Any:
            return privileged_context

    class Trainer(clocked(SDFTTrainer, record, args.save_every, args.save_dir)):  # type: ignore[misc]
        _lengths: tuple[int, ...] = ()

        def sample_rollouts(self, inputs: list[Row]) -> Any:
            self._lengths = tuple(row["target_length"] for row in inputs)
            return super().sample_rollouts(inputs)

        def _generate(self, prompt_ids: list[list[int]]) -> Any:
            with record.timed("generation"), self._exact_lengths():
                prompts, completions = super()._generate(prompt_ids)
            record.tokens += sum(map(len, completions))
            return prompts, completions

        @contextlib.contextmanager
        def _exact_lengths(self) -> Iterator[None]:
            if not args.target_length:
                yield
                return
            lengths = torch.tensor(self._lengths)
            ends = functools.partial(end_at, lengths=lengths, eos_ids=self.eos_token_ids, start=[])
            self.model.generate = functools.partial(self.model.generate, logits_processor=[ends])
            try:
                yield
            finally:
                del self.model.generate

        def _forward_logits(self, model: Any, *inputs: Any, **named: Any) -> Any:
            with record.timed("teacher" if model is self.teacher_model else "student"):
                return super()._forward_logits(model, *inputs, **named)

    dtype, autocast = PRECISIONS[args.precision]
    config = SDFTConfig(
        **common_settings(args, autocast),
        **DISTILLATION[args.mode],
        model_init_kwargs={"dtype": dtype, "attn_implementation": args.attention},
        teacher_model_kind="base",
        num_generations=1,
        max_completion_length=args.max_completion,
        max_prompt_length=None,  # TRL cuts prompts from the left, at 512 tokens by default
        temperature=args.temperature,
        shuffle_dataset=False,
        generation_kwargs={"min_new_tokens": args.max_completion} if args.fixed_length else None,
    )
    columns = [
        {
            "prompt": row["prompt"],
            "privileged_context": row["teacher_prompt"],
            "target_length": min(len(row["target_ids"]), args.max_completion),
        }
        for row in in_order(rows, args)
    ]
    trainer = Trainer(
        model=str(args.model),
        args=config,
        train_dataset=Dataset.from_list(columns),
        processing_class=load_tokenizer(args.model),
    )
    trainer.teacher_context_builder = TeacherPrompts(trainer)
    assert trainer._tokenize_prompts([row["prompt"] for row in rows]) == [row["prompt_ids"] for row in rows]
    assert trainer._tokenize_prompts([row["teacher_prompt"] for row in rows]) == [row["teacher_ids"] for row in rows]
    return trainer


def end_at(
    input_ids: torch.Tensor, scores: torch.Tensor, *, lengths: torch.Tensor, eos_ids: list[int], start: list[int]
) -> torch.Tensor:
    """Lets each row of a batch stop at its own length: not before, and then surely.

    Args:
        input_ids: [B, T] tokens so far.
        scores: [B, V] logits of the next one.
        lengths: [B] wanted tokens of the completions, the stop token included.
        eos_ids: stop tokens.
        start: empty at first; keeps the prompts' padded length.
    """
    if not start:
        start.append(input_ids.shape[1])
    last = lengths - 1 <= input_ids.shape[1] - start[0]  # [B]
    scores = scores.clone()
    scores[:, eos_ids] = float("-inf")
    scores[last] = float("-inf")
    scores[last, eos_ids[0]] = 0.0
    return scores


def sft_trainer(args: argparse.Namespace, rows: list[Row], record: Record) -> Any:
    """TRL's SFTTrainer on the same prompts, learning the demonstrations."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    class Trainer(clocked(SFTTrainer, record, args.save_every, args.save_dir)):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
            record.tokens += int((inputs["labels"] != -100).sum())
            return super().compute_loss(model, inputs, *rest, **named)

    dtype, autocast = PRECISIONS[args.precision]
    config = SFTConfig(
        **common_settings(args, autocast),
        model_init_kwargs={"dtype": dtype, "attn_implementation": args.attention},
        max_length=None,
        completion_only_loss=True,
        train_sampling_strategy="sequential",
    )
    columns = [
        {
            "input_ids": row["prompt_ids"] + row["target_ids"],
            "completion_mask": [0] * len(row["prompt_ids"]) + [1] * len(row["target_ids"]),
        }
        for row in in_order(rows, args)
    ]
    tokenizer = load_tokenizer(args.model)
    for row in rows:
        ids = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
        assert ids == row["prompt_ids"], row["id"]
    return Trainer(
        model=str(args.model), args=config, train_dataset=Dataset.from_list(columns), processing_class=tokenizer
    )


def common_settings(args: argparse.Namespace, autocast: bool) -> dict[str, Any]:
    """What both trainers are given: nothing but training."""
    return {
        "output_dir": str(args.out.parent),  # nothing is written there
        "per_device_train_batch_size": args.micro_batch,
        "gradient_accumulation_steps": args.batch_size // args.micro_batch,
        "max_steps": args.steps,
        "learning_rate": args.learning_rate,
        "lr_scheduler_type": args.schedule,
        "warmup_steps": args.warmup_steps,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "bf16": autocast,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        "save_strategy": "no",
        "eval_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": args.seed,
    }


def load_tokenizer(model: Path) -> Any:
    """The model's tokenizer, padding on the left as SDFTTrainer sets it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model, padding_side="left")


def in_order(rows: list[Row], args: argparse.Namespace) -> list[Row]:
    """The rows of all steps, in the order in which selftaught takes them for the same seed."""
    taken: list[Row] = []
    epoch = 0
    while len(taken) < args.steps * args.batch_size:
        order = list(range(len(rows)))
        random.Random(f"order/{args.seed}/{epoch}").shuffle(order)
        taken += [rows[index] for index in order]
        epoch += 1
    return taken[: args.steps * args.batch_size]


# -------------------------------------------------------------------------------------------- running


def peak_memory_gib() -> float:
    """Largest resident memory of this process so far, in GiB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**20
    raise RuntimeError("this system does not tell the peak of resident memory")


def main() -> None:
    """Trains, and writes the record."""
    args = parse_arguments()
    prepare_process(args)
    import torch
    from transformers import PrinterCallback

    torch.set_num_threads(args.threads)
    rows = json.loads(args.rows.read_text(encoding="utf-8"))
    record = Record()
    trainer = (sdft_trainer if args.method == "sdft" else sft_trainer)(args, rows, record)
    trainer.remove_callback(PrinterCallback)
    loaded_gib = peak_memory_gib()
    trainer.train()
    result = {
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()},
        "versions": {name: importlib.metadata.version(name) for name in ("trl", "transformers", "torch")},
        "num_rows": len(rows),
        "steps": record.steps,
        "step_seconds": [step["seconds"] for step in record.steps],
        "completion_tokens": [step["tokens"] for step in record.steps],
        "peak_memory_gib": peak_memory_gib(),
        "loaded_memory_gib": loaded_gib,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
