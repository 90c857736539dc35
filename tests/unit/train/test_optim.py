"""AdamW on float32 masters, against torch's AdamW and plain arithmetic."""

from __future__ import annotations

import gc
import itertools
import math
import weakref
from pathlib import Path

import pytest
import torch
from tiny_run import LORA, gradients_of, make_student, tiny_config
from torch import Tensor, nn

from selftaught.config import LearnConfig
from selftaught.errors import TrainingError
from selftaught.models.load import LanguageModel, load_model
from selftaught.train.optim import Optimizer, learning_rate


def config(**values: object) -> LearnConfig:
    defaults: dict[str, object] = {"steps": 100, "warmup_steps": 0, "schedule": "constant", "learning_rate": 1e-3}
    return LearnConfig.model_validate({**defaults, **values})


def network(dtype: torch.dtype = torch.float32, seed: int = 0) -> LanguageModel:
    """Two layers, the first of them frozen in part, in the clothes of a language model."""
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    layers[0].bias.requires_grad_(False)
    return LanguageModel(layers, None, Path(), dtype, frozenset(), 1)


def data(number: int = 12) -> Tensor:
    return torch.randn(number, 6, generator=torch.Generator().manual_seed(9))


def backward(model: LanguageModel, rows: Tensor, share: float = 1.0) -> None:
    (share * model.model(rows.to(model.dtype)).float().square().mean()).backward()


# ------------------------------------------------------------------------------------------ schedule


def test_warm_up_then_cosine() -> None:
    cosine = config(schedule="cosine", warmup_steps=4, steps=24, learning_rate=2.0)
    rates = [learning_rate(cosine, step) for step in range(24)]
    assert rates[:4] == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert rates[4] == pytest.approx(2.0)
    assert rates[14] == pytest.approx(1.0)  # half way
    assert rates[23] == pytest.approx(1 + math.cos(math.pi * 19 / 20))
    assert all(a > b for a, b in itertools.pairwise(rates[4:]))
    assert min(rates) > 0, "every step moves the weights"


def test_warm_up_then_constant() -> None:
    constant = config(warmup_steps=2, steps=10, learning_rate=3.0)
    assert [learning_rate(constant, step) for step in range(5)] == pytest.approx([1.5, 3, 3, 3, 3])


@pytest.mark.parametrize("steps", [1, 3, 5, 6])
def test_runs_no_longer_than_the_warm_up_have_a_rate(steps: int) -> None:
    short = config(schedule="cosine", warmup_steps=5, steps=steps, learning_rate=1.0)
    assert all(0 < learning_rate(short, step) <= 1 for step in range(steps))


# ----------------------------------------------------------------------------------------- optimizer


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_equals_plain_adamw_on_a_float32_model(decay: float) -> None:
    settings = config(schedule="cosine", warmup_steps=2, steps=8, weight_decay=decay, max_grad_norm=0.1)
    ours, plain = network(), network()
    optimizer = Optimizer(ours, settings)
    trained = [p for p in plain.model.parameters() if p.requires_grad]
    reference = torch.optim.AdamW(trained, lr=1.0, weight_decay=decay, foreach=False, fused=False)
    for step in range(6):
        backward(ours, data())
        norm = optimizer.step(step)
        backward(plain, data())
        expected_norm = torch.stack([p.grad.norm() for p in trained if p.grad is not None]).norm()
        assert norm == pytest.approx(expected_norm.item(), rel=1e-5)
        for p in trained:
            assert p.grad is not None
            p.grad *= min(1.0, 0.1 / norm)
        reference.param_groups[0]["lr"] = learning_rate(settings, step)
        reference.step()
        reference.zero_grad()
        for a, b in zip(ours.model.parameters(), plain.model.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    assert torch.equal(ours.model[0].bias, network().model[0].bias), "a frozen weight stays"  # type: ignore[index]


def test_a_step_clears_the_gradients() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        model, fresh = network(dtype), network(dtype)
        optimizer = Optimizer(model, config(learning_rate=1e-30))  # the weights stay as they are
        backward(model, data())
        optimizer.step(0)
        assert not gradients_of(optimizer)
        assert all(weight.grad is None for weight in model.model.parameters()), "summed and dropped"
        other = Optimizer(fresh, config())
        for each in (model, fresh):
            backward(each, data())
        found, expected = gradients_of(optimizer), gradients_of(other)
        assert found.keys() == expected.keys() == optimizer.masters.keys()
        for name, gradient in expected.items():
            assert torch.equal(found[name], gradient), "what an earlier step summed is forgotten"


def test_masters_are_float32_and_small_updates_add_up() -> None:
    layer = nn.Linear(4, 4, bias=False)
    nn.init.ones_(layer.weight)
    model = LanguageModel(layer, None, Path(), torch.bfloat16, frozenset(), 1)
    optimizer = Optimizer(model, config(learning_rate=1e-6, steps=10_000))
    (master,) = optimizer.masters.values()
    assert master.dtype == torch.float32 and layer.weight.dtype == torch.bfloat16
    for step in range(5):
        layer.weight.sum().backward()
        optimizer.step(step)
    torch.testing.assert_close(master, torch.full((4, 4), 1 - 5e-6), rtol=0, atol=1e-7)
    assert torch.equal(layer.weight, torch.ones(4, 4, dtype=torch.bfloat16)), "bfloat16 alone would never move"


def test_the_model_computes_with_the_rounded_masters() -> None:
    model = network(torch.bfloat16)
    exact = network().model.state_dict()
    optimizer = Optimizer(model, config(learning_rate=0.05))
    for name, master in optimizer.masters.items():
        assert torch.equal(master, exact[name]), "masters are the float32 weights, not rounded ones"
    for step in range(3):
        backward(model, data())
        optimizer.step(step)
    weights = dict(model.model.named_parameters())
    assert weights["0.weight"].dtype == torch.bfloat16
    for name, master in optimizer.masters.items():
        assert not torch.equal(master, exact[name])
        assert torch.equal(weights[name], master.bfloat16())


def test_a_trained_model_computes_as_the_one_that_is_loaded_later(sharp_model: Path) -> None:
    """Buffers keep their type: rotary frequencies rounded to bfloat16 would turn far positions by whole radians."""
    loaded = load_model(sharp_model, dtype="bfloat16")
    student = load_model(sharp_model, dtype="bfloat16", masters=True)
    Optimizer(student, config())
    for model in (loaded, student):
        assert {p.dtype for p in model.model.parameters()} == {torch.bfloat16}
    buffers = dict(student.model.named_buffers())
    for name, buffer in loaded.model.named_buffers():
        assert buffer.dtype == buffers[name].dtype
        assert torch.equal(buffer, buffers[name])
    ids = torch.arange(700)[None] % 259
    with torch.no_grad():
        assert torch.equal(loaded.hidden_states(ids).last_hidden_state, student.hidden_states(ids).last_hidden_state)


def test_gradients_are_summed_in_float32() -> None:
    layer = nn.Linear(2, 2, bias=False)
    model = LanguageModel(layer, None, Path(), torch.bfloat16, frozenset(), 1)
    optimizer = Optimizer(model, config())
    (master,) = optimizer.masters.values()
    small = 2.0**-12  # vanishes beside 1 in bfloat16
    for factor in (1.0, small, small):
        (factor * layer.weight).sum().backward()
    (gradient,) = gradients_of(optimizer).values()
    assert master.dtype == gradient.dtype == torch.float32
    assert torch.equal(gradient, torch.full((2, 2), 1 + 2 * small))
    assert layer.weight.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_micro_batches_equal_one_batch(dtype: torch.dtype) -> None:
    whole, parts = network(dtype), network(dtype)
    one, many = Optimizer(whole, config()), Optimizer(parts, config())
    backward(whole, data(12))
    for rows in data(12).split(3):
        backward(parts, rows, share=0.25)
    tolerance = 1e-6 if dtype == torch.float32 else 2e-2
    found, expected = gradients_of(many), gradients_of(one)
    assert found.keys() == expected.keys() == one.masters.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=tolerance, atol=tolerance)
    assert one.step(0) == pytest.approx(many.step(0), rel=10 * tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_changes_no_weight(dtype: torch.dtype, bad: float) -> None:
    model = network(dtype)
    optimizer = Optimizer(model, config())
    backward(model, data())
    optimizer.step(0)
    before = {name: tensor.clone() for name, tensor in optimizer.state().items()}
    weights = [p.detach().clone() for p in model.model.parameters()]
    (bad * model.model(data().to(dtype))).sum().backward()
    with pytest.raises(TrainingError, match=r"step 8: .*not finite"):
        optimizer.step(7)
    after = optimizer.state()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(torch.equal(a, b) for a, b in zip(weights, model.model.parameters(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_state_goes_round_bit_for_bit(dtype: torch.dtype) -> None:
    model = network(dtype)
    optimizer = Optimizer(model, config(weight_decay=0.01))
    for step in range(3):
        backward(model, data())
        optimizer.step(step)
    state = {name: tensor.clone() for name, tensor in optimizer.state().items()}
    other = network(dtype, seed=1)
    for p, q in zip(other.model.parameters(), model.model.parameters(), strict=True):
        if not p.requires_grad:
            p.data.copy_(q.data)  # what is not trained is not in the state
    resumed = Optimizer(other, config(weight_decay=0.01))
    resumed.load_state(state)
    assert all(torch.equal(state[name], tensor) for name, tensor in resumed.state().items())
    for step in range(3, 6):
        for each, opt in ((model, optimizer), (other, resumed)):
            backward(each, data())
            opt.step(step)
    final, again = optimizer.state(), resumed.state()
    assert final.keys() == again.keys() and len(final) == 1 + 3 * len(optimizer.masters)
    assert all(torch.equal(final[name], again[name]) for name in final)
    assert all(torch.equal(p, q) for p, q in zip(model.model.parameters(), other.model.parameters(), strict=True))


def test_a_state_before_the_first_step_goes_round() -> None:
    model = network(seed=3)
    optimizer, other = Optimizer(network(), config()), Optimizer(model, config())
    other.load_state(optimizer.state())
    assert all(torch.equal(a, other.masters[name]) for name, a in optimizer.masters.items())
    backward(model, data())
    assert other.step(0) > 0


def test_a_closed_optimizer_leaves_the_model_to_others() -> None:
    model = network()
    optimizer = Optimizer(model, config())
    backward(model, data())
    assert optimizer.step(0) > 0
    optimizer.close()
    memory = weakref.ref(optimizer._gradients)
    backward(model, data())
    assert all((weight.grad is not None) == weight.requires_grad for weight in model.model.parameters())
    assert not gradients_of(optimizer)
    del optimizer
    gc.collect()
    assert memory() is None, "gradients' memory is free although the model lives on"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("weights", [{"kind": "full"}, LORA], ids=lambda w: w["kind"])
def test_a_state_names_every_trained_weight_in_its_shape(sharp_model: Path, weights: object, dtype: str) -> None:
    student, optimizer, _, _ = make_student(sharp_model, tiny_config(weights=weights, dtype=dtype))
    trained = {name: weight for name, weight in student.model.named_parameters() if weight.requires_grad}
    assert optimizer.masters.keys() == trained.keys()
    state = optimizer.state()
    parts = ("master", "exp_avg", "exp_avg_sq")
    assert state.keys() == {"adamw.step", *(f"{part}.{name}" for part in parts for name in trained)}
    for name, weight in trained.items():
        assert torch.equal(weight, optimizer.masters[name].to(weight.dtype))
        for part in parts:
            assert state[f"{part}.{name}"].shape == weight.shape
            assert state[f"{part}.{name}"].dtype == torch.float32
    assert {weight.dtype for weight in student.model.parameters()} == {student.dtype}
    pieces = {weight.untyped_storage().data_ptr() for weight in trained.values()}
    assert len(pieces) == 1, "one piece of memory, that several processes can see"
