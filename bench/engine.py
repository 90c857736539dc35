"""Measures the parts of a step by themselves, in one process with one thread, A B A B …:

* the processor's peak in matrix products, and what the student's forward and backward reach of it;
* decoding, against transformers' `generate` on the same ragged prompts;
* the loss, as vocabulary and number of tokens grow.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from selftaught.runtime import peak_memory_gib, prepare, reset_peak_memory

prepare()

import torch  # noqa: E402  # after the process has been set up
from lengths import set_lengths  # noqa: E402
from torch import Tensor  # noqa: E402

from selftaught.config import LossConfig  # noqa: E402
from selftaught.losses.distillation import Head, distillation_loss  # noqa: E402
from selftaught.models.attention import use_fast_attention  # noqa: E402
from selftaught.models.fast_decoder import make_decoder  # noqa: E402
from selftaught.models.load import LanguageModel, load_model  # noqa: E402
from selftaught.models.prefill import FreshPrompts  # noqa: E402
from selftaught.models.score import student_hidden  # noqa: E402
from selftaught.rollout.sampler import Sampling  # noqa: E402
from selftaught.rollout.torch_sampler import sample  # noqa: E402

Seconds = dict[str, list[float]]


def interleaved(contenders: Mapping[str, Callable[[], object]], rounds: int) -> Seconds:
    """Seconds of each contender in each round, A B A B …, after one round that does not count."""
    seconds: Seconds = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def utilisation(model: LanguageModel, rounds: int) -> list[dict[str, Any]]:
    """The student's forward and backward, as a part of the peak of a 2048³ matrix product measured between them."""
    square = torch.randn(2048, 2048).to(model.dtype)
    matrices = sum(p.numel() for n, p in model.model.named_parameters() if p.ndim == 2 and "embed" not in n)
    result = []
    for rows, length in ((8, 64), (4, 128), (2, 256), (1, 512)):
        # no two rows begin alike, or what they share would be run once
        prompts = [[5 + (29 * row + place) % 250 for place in range(length // 2 + row)] for row in range(rows)]
        answers = [[7] * (length - len(prompt)) for prompt in prompts]

        def train(prompts: Any = prompts, answers: Any = answers) -> None:
            student_hidden(model, prompts, answers).sum().backward()
            for weight in model.model.parameters():
                weight.grad = None

        seconds = interleaved({"peak": lambda: square @ square, "step": train}, rounds)
        peak = 2 * 2048**3 / statistics.median(seconds["peak"])
        reached = [6 * matrices * rows * length / one for one in seconds["step"]]
        share = [one / peak for one in reached]
        result.append({"rows": rows, "length": length, "peak_gflops": peak / 1e9, "share": share})
    return result


def decoding(model: LanguageModel, rounds: int, batch: int = 32, longest: int = 48) -> list[dict[str, Any]]:
    """Seconds for ragged prompts, greedy: with completions that all are `longest`, and with ragged ones.

    Ragged completions end by themselves, at lengths drawn log-uniformly; both sides are told each row's.
    """
    rng = random.Random(0)
    words = list(range(300, 20_000))
    prompts = [[rng.choice(words) for _ in range(rng.randint(16, 128))] for _ in range(batch)]
    ragged = [round(math.exp(rng.uniform(math.log(8), math.log(longest)))) for _ in range(batch)]
    model.plain_model.set_attn_implementation("sdpa")  # `generate` as it comes
    endless = dataclasses.replace(model, stop_ids=frozenset())
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])

    def ours(lengths: Sequence[int]) -> None:
        set_lengths(dict(zip(map(tuple, prompts), lengths, strict=True)))
        sample(FreshPrompts(make_decoder(endless, longest), prompts), Sampling(longest, temperature=0.0))

    def theirs(lengths: Sequence[int]) -> None:
        ends = torch.tensor(lengths)

        def stop(input_ids: Tensor, scores: Tensor) -> Tensor:
            done = ends - 1 <= input_ids.shape[1] - width
            scores[:, 2] = torch.where(done, torch.inf, -torch.inf)
            return scores

        options = {"max_new_tokens": longest, "do_sample": False, "pad_token_id": 0, "eos_token_id": 2}
        with torch.no_grad():
            model.plain_model.generate(input_ids=ids, attention_mask=mask, logits_processor=[stop], **options)

    found = []
    for name, lengths in (("completions alike", [longest] * batch), ("ragged completions", ragged)):
        runs = {"selftaught": partial(ours, lengths), "generate": partial(theirs, lengths)}
        seconds = interleaved(runs, rounds)
        found.append({"name": f"{batch} rows, {name}", "new_tokens_total": sum(lengths), "seconds": seconds})
    use_fast_attention(model.plain_model)
    return found


LOSS_SIZES = [(256, 49_152), (512, 49_152), (1024, 49_152), (2048, 49_152), (512, 16_384), (512, 131_072)]
"""(completion tokens, vocabulary)."""


def one_loss(tokens: int, vocabulary: int, rounds: int) -> dict[str, Any]:
    """Seconds and memory of the loss and its gradient, beyond its inputs and the gradients that it leaves."""
    torch.manual_seed(0)
    dtype, width = torch.bfloat16, 576
    student = (torch.randn(tokens, width) * 0.5).to(dtype).requires_grad_()
    teacher = (torch.randn(tokens, width) * 0.5).to(dtype)
    weight = (torch.randn(vocabulary, width) * 0.05).to(dtype).requires_grad_()
    weights = torch.full((tokens,), 1 / tokens)
    weight.grad = torch.zeros_like(weight)
    seconds = []
    reset_peak_memory()
    before = peak_memory_gib()
    for _ in range(rounds):
        start = time.perf_counter()
        output = distillation_loss(student, Head(weight), teacher, Head(weight.detach()), weights, LossConfig())
        output.loss.backward()
        seconds.append(time.perf_counter() - start)
    return {"tokens": tokens, "vocabulary": vocabulary, "seconds": seconds, "gib": peak_memory_gib() - before}


def losses(rounds: int) -> list[dict[str, Any]]:
    """Each size in a process of its own, so that its memory is its own."""
    found = []
    for tokens, vocabulary in LOSS_SIZES:
        command = [sys.executable, __file__, "--one-loss", str(tokens), str(vocabulary), "--rounds", str(rounds)]
        found.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return found


def main() -> None:
    """Writes one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="a transformers directory or selftaught's name")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one-loss", type=int, nargs=2, metavar=("TOKENS", "VOCABULARY"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.one_loss:
        print(json.dumps(one_loss(*args.one_loss, args.rounds)))
        return
    model = load_model(args.model)
    result = {
        "decoding": decoding(model, args.rounds),
        "utilisation": utilisation(model, args.rounds),
        "losses": losses(args.rounds),
    }
    args.out.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
