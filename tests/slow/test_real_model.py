"""The default model, as it is fetched and converted: minutes, and the network once. Run by `make check-slow`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from process_work import train_one

from selftaught.config import LearnConfig
from selftaught.config_files import load_config
from selftaught.data.corpora import disasters
from selftaught.evaluation.drift import drift_nats, drift_reference
from selftaught.evaluation.runner import check_lift
from selftaught.models.decoder import NewTokens, PlainDecoder
from selftaught.models.fast_decoder import FastDecoder, make_decoder
from selftaught.models.load import LanguageModel, load_model
from selftaught.models.prefill import FreshPrompts, PrefixStore
from selftaught.models.resolve import resolve_model
from selftaught.processes import process_group
from selftaught.prompts import student_prompt, teacher_prompt
from selftaught.rollout.sampler import Sampling
from selftaught.rollout.torch_sampler import sample
from selftaught.train.loop import Callbacks, RunRecord, StepReport, save_model, train

pytestmark = pytest.mark.slow

NAME = "smollm2-135m"
EXAMPLES = disasters(("d01", "d02"))
TAUGHT = [example for example in EXAMPLES if example.split == "train"]
SETTINGS = [
    "weights.kind=full",
    "batch_size=4",
    "probes=false",
    "anchor.pool=4",
    "anchor.rows=2",
    "warmup_steps=1",
    "seed=3",
]
LORA = ["weights.kind=lora", "weights.rank=8", "weights.alpha=16"]


def config(*settings: str) -> LearnConfig:
    return load_config(None, [*SETTINGS, *settings])


@pytest.fixture(scope="module")
def path() -> Path:
    return resolve_model(NAME)


@pytest.fixture(scope="module")
def base(path: Path) -> LanguageModel:
    return load_model(path, dtype="float32")


class Killed(BaseException):
    """Ends a run where a SIGKILL might."""


def stop_after(step: int) -> Callbacks:
    def on_step(report: StepReport) -> None:
        if report.step > step:  # after that step's checkpoint, and one step further
            raise Killed

    return Callbacks(on_step)


def losses(record: RunRecord) -> list[float]:
    return [point["loss"] for point in record.steps]


def test_sampler_equals_transformers_token_for_token(base: LanguageModel) -> None:
    sampling = Sampling(24, temperature=0.0)
    prompts = [student_prompt(row, base.tokenizer) for row in TAUGHT[:4]]
    prompts += [teacher_prompt(row, base.tokenizer, LearnConfig().prompts) for row in TAUGHT[:2]]
    drawn = sample(FreshPrompts(make_decoder(base), prompts), sampling)
    for prompt, completion in zip(prompts, drawn, strict=True):
        ids = torch.tensor([prompt])
        expected = base.model.generate(  # type: ignore[operator]
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False, pad_token_id=0
        )
        assert completion.ids == tuple(expected[0, len(prompt) :].tolist())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_fast_decoder_computes_what_transformers_does(path: Path, base: LanguageModel, dtype: str) -> None:
    model = load_model(path, dtype=dtype)
    prompts = [teacher_prompt(row, base.tokenizer, LearnConfig().prompts) for row in TAUGHT[:3]]
    lengths, cpu = [len(prompt) for prompt in prompts], model.device
    states = []
    for decoder in (PlainDecoder(model), FastDecoder(model), FastDecoder(model, prepack=True)):
        cache = decoder.new_cache(3, max(lengths))
        decoder.extend(cache, NewTokens.of([prompt[:-9] for prompt in prompts], [0] * 3, cpu))
        starts = [length - 9 for length in lengths]
        states.append(decoder.extend(cache, NewTokens.of([prompt[-9:] for prompt in prompts], starts, cpu)).float())
    exact = torch.cat(
        [base.hidden_states(torch.tensor([prompt])).last_hidden_state[0, -9:].detach() for prompt in prompts]
    )
    errors = [float((each - exact).norm() / exact.norm()) for each in states]
    assert max(errors) < (1e-4 if dtype == "float32" else 1.5 * errors[0]), errors


def test_kept_prompts_are_the_same_bit_for_bit_wherever_they_lie(path: Path) -> None:
    model = load_model(path)
    decoder = make_decoder(model)
    prompts = [tuple(teacher_prompt(row, model.tokenizer, LearnConfig().prompts)) for row in TAUGHT[:4]]
    store, found = PrefixStore(decoder, 1 << 26), []
    for rows, first, spare in ((1, 0, 0), (5, 3, 40), (9, 8, 100)):
        for each in (store, PrefixStore(decoder, 0)):
            cache = decoder.new_cache(rows, max(map(len, prompts)) + spare)
            found.append([each.load_row(cache, first, prompt) for prompt in prompts])
    for states in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(states, found[0], strict=True))


def test_the_demonstration_lifts_it(base: LanguageModel) -> None:
    lift = check_lift(base, EXAMPLES, LearnConfig().prompts, 24)
    assert lift.without.value <= 0.25
    assert lift.with_demonstration.value >= 0.75
    assert lift.warning is None


@pytest.mark.parametrize("weights", [[], LORA], ids=["full", "lora"])
def test_a_few_steps_teach(weights: list[str], path: Path, base: LanguageModel, tmp_path: Path) -> None:
    settings = [*weights, "steps=10", "rollout.teacher_share_fall=1.0", "learning_rate=1e-3" if weights else "epochs=1"]
    model, record = train(path, EXAMPLES, config(*settings))
    values = losses(record)
    assert sum(values[-3:]) < 0.7 * sum(values[:3])
    reference = drift_reference(base, 4)
    assert 0 < drift_nats(reference, model) < 2

    save_model(model, tmp_path / "model", config(*settings))
    loaded = load_model(tmp_path / "model")
    prompts = [student_prompt(row, model.tokenizer) for row in TAUGHT[:2]]
    greedy = Sampling(16, temperature=0.0)
    again, ours = (sample(FreshPrompts(make_decoder(one), prompts), greedy) for one in (loaded, model))
    if not weights:  # merging adapters rounds
        assert again == ours


@pytest.mark.parametrize(
    "settings", [[], ["method=sft"], ["teacher.kind=ema"], LORA], ids=["sdft", "sft", "ema", "lora"]
)
def test_resumed_equals_uninterrupted_bit_for_bit(settings: list[str], path: Path, tmp_path: Path) -> None:
    run = config(*settings, "steps=4", "checkpoint_every=2", "rollout.max_new_tokens=12")
    whole, whole_record = train(path, EXAMPLES, run, tmp_path / "whole")
    with pytest.raises(Killed):
        train(path, EXAMPLES, run, tmp_path / "parts", stop_after(2))
    assert [folder.name for folder in (tmp_path / "parts").iterdir()] == ["step-000002"]
    parts, parts_record = train(path, EXAMPLES, run, tmp_path / "parts")
    assert losses(parts_record) == losses(whole_record)
    for (name, one), other in zip(whole.model.state_dict().items(), parts.model.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    shutil.rmtree(tmp_path / "whole")
    shutil.rmtree(tmp_path / "parts")


@pytest.mark.parametrize("settings", [[], ["method=sft"]], ids=["sdft", "sft"])
def test_two_processes_learn_as_one(settings: list[str], path: Path) -> None:
    run = config(*settings, "steps=3", "rollout.max_new_tokens=12", "dtype=float32")
    one, record = train(path, EXAMPLES, run)
    with process_group(2, train_one, path, EXAMPLES, run, None, None) as group:
        both = train_one(path, EXAMPLES, run, None, None, group)
    assert [point["loss"] for point in both["record"]["steps"]] == pytest.approx(losses(record), rel=1e-3)
    start = dict(load_model(path, dtype="float32").model.named_parameters())
    moved = off = 0.0
    for name, weight in one.model.named_parameters():
        moved += float((weight - start[name]).detach().square().sum())
        off += float((weight - both["weights"][name]).detach().square().sum())
    assert off < 1e-2 * moved
