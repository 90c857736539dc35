"""One step of SDFT and of SFT: its loss and its gradient against plain references."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import LORA, Drawn, make_student, make_teacher, run_step, same_prompts, tiny_config, weights_of
from torch import Tensor

from selftaught.errors import TrainingError
from selftaught.losses.divergence import divergence
from selftaught.models.load import LanguageModel, load_model
from selftaught.train.batch import TrainRow
from selftaught.train.sft import sft_step
from selftaught.train.step import check_finite

FULL = {"kind": "full"}
TOPK = {"kind": "teacher_topk", "k": 20}
TEACHERS: list[dict[str, Any]] = [{"kind": "frozen"}, {"kind": "ema"}, {"kind": "live"}]


def full_logits(model: LanguageModel, prompt: tuple[int, ...], completion: tuple[int, ...]) -> Tensor:
    """What predicts each completion token, from transformers itself, one row at a time: [T, V]."""
    logits = model.plain_model(input_ids=torch.tensor([[*prompt, *completion]]), use_cache=False).logits
    return logits[0, len(prompt) - 1 : -1].float()


def assert_close(ours: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = 1e-4) -> None:
    assert ours.keys() == other.keys() and ours
    largest = max(gradient.abs().max().item() for gradient in other.values())
    for name, gradient in other.items():
        torch.testing.assert_close(ours[name], gradient, rtol=tolerance, atol=tolerance * largest)


# ---------------------------------------------------------------------------------------------- SDFT


@pytest.mark.parametrize("support", [FULL, TOPK], ids=lambda s: s["kind"])
@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jsd"])
def test_loss_and_gradient_equal_a_plain_reference(sharp_model: Path, name: Any, support: Any) -> None:
    config = tiny_config(loss={"divergence": name, "support": support, "skip_tokens": 1, "chunk_tokens": 3})
    student, optimizer, config, rows = make_student(sharp_model, config)
    teacher = make_teacher(student, optimizer, config)
    drawn = Drawn(student, teacher, rows, config)
    output = run_step(student, teacher, optimizer, rows, config, rollouts=drawn)

    base = load_model(sharp_model, dtype="float32")  # the student before the step
    total = torch.zeros(())
    nats, number = 0.0, 0
    assert sorted(rollout.row for rollout in drawn.last) == [0, 1, 2, 3]
    for rollout in drawn.last:
        row, ids = rows[rollout.row], rollout.completion.ids
        with torch.no_grad():
            teacher_logits = full_logits(base, row.teacher_prompt, ids) / config.loss.teacher_temperature
        values = divergence(name, teacher_logits, full_logits(base, row.prompt, ids), config.loss.support)
        total = total + values[min(1, len(values) - 1) :].mean() / len(rows)
        nats, number = nats + values.detach().sum().item(), number + len(values)
    total.backward()
    assert output.loss == pytest.approx(total.item(), rel=1e-4)
    assert output.gap_nats == pytest.approx(nats / number, rel=1e-4)
    assert output.num_tokens == number
    assert output.num_ended == sum(rollout.completion.ended for rollout in drawn.last)
    gradients = {key: p.grad for key, p in base.model.named_parameters() if p.grad is not None}
    assert_close(optimizer.gradients[0], gradients)
    assert output.grad_norm == pytest.approx(
        torch.stack([g.norm() for g in gradients.values()]).norm().item(), rel=1e-4
    )


@pytest.mark.parametrize("size", [32, 4096])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_several_completions_of_each_prompt_weigh_alike(sharp_model: Path, share: float, size: int) -> None:
    rollout = {"max_new_tokens": 6, "teacher_share": share, "temperature": 1.0, "per_prompt": 3}
    config = tiny_config(batch_size=12, rollout=rollout, microbatch_tokens=size)
    student, optimizer, config, rows = make_student(sharp_model, config)
    teacher = make_teacher(student, optimizer, config)
    drawn = Drawn(student, teacher, rows, config)
    output = run_step(student, teacher, optimizer, rows, config, rollouts=drawn)
    assert len(drawn.last) == 12
    for row in range(4):
        copies = [one.completion.ids for one in drawn.last if one.row == row]
        assert len(copies) == 3 and len(set(copies)) > 1, "each is drawn by itself"

    base = load_model(sharp_model, dtype="float32")
    total = torch.zeros(())
    for one in drawn.last:
        row, ids = rows[one.row], one.completion.ids
        with torch.no_grad():
            teacher_logits = full_logits(base, row.teacher_prompt, ids) / config.loss.teacher_temperature
        total = total + divergence("forward_kl", teacher_logits, full_logits(base, row.prompt, ids)).mean() / 12
    total.backward()
    assert output.loss == pytest.approx(total.item(), rel=1e-4)
    assert output.num_tokens == sum(len(one.completion.ids) for one in drawn.last)
    assert_close(optimizer.gradients[0], {n: p.grad for n, p in base.model.named_parameters() if p.grad is not None})


@pytest.mark.parametrize("teacher_kind", TEACHERS, ids=lambda t: t["kind"])
@pytest.mark.parametrize("weights", [FULL, LORA], ids=lambda w: w["kind"])
def test_a_teacher_that_sees_no_more_teaches_nothing(sharp_model: Path, weights: Any, teacher_kind: Any) -> None:
    """Unless it is made surer than it is."""
    config = tiny_config(weights=weights, teacher=teacher_kind, loss={"teacher_temperature": 1.0})
    student, optimizer, config, rows = make_student(sharp_model, config)
    teacher = make_teacher(student, optimizer, config)
    informed = run_step(student, teacher, optimizer, rows, config)
    assert informed.loss > 0.05 and informed.grad_norm > 0.05

    student, optimizer, config, rows = make_student(sharp_model, config)
    teacher = make_teacher(student, optimizer, config)
    output = run_step(student, teacher, optimizer, same_prompts(rows), config)
    assert abs(output.loss) < 1e-5
    assert output.grad_norm < 1e-3


@pytest.mark.parametrize("weights", [FULL, LORA], ids=lambda w: w["kind"])
def test_the_size_of_micro_batches_changes_nothing(sharp_model: Path, weights: Any) -> None:
    found, answers = [], []
    for size in (32, 4096):
        config = tiny_config(microbatch_tokens=size, weights=weights)
        student, optimizer, config, rows = make_student(sharp_model, config)
        teacher = make_teacher(student, optimizer, config)
        drawn = Drawn(student, teacher, rows, config)
        output = run_step(student, teacher, optimizer, rows, config, rollouts=drawn)
        found.append((output, optimizer.gradients[0], weights_of(student)))
        answers.append([rollout.completion for rollout in drawn.last])
    (small, small_gradients, small_weights), (large, large_gradients, large_weights) = found
    assert answers[0] == answers[1]
    assert small.loss == pytest.approx(large.loss, rel=1e-5)
    assert small.gap_nats == pytest.approx(large.gap_nats, rel=1e-5)
    assert_close(small_gradients, large_gradients)
    differing = sum(int(((small_weights[n] - w).abs() > 1e-5).sum()) for n, w in large_weights.items())
    assert differing < 0.01 * sum(w.numel() for w in large_weights.values())


def test_the_order_of_the_rows_changes_nothing(sharp_model: Path) -> None:
    """Greedy, since at a temperature a row's randomness goes by its place."""
    rollout = {"max_new_tokens": 6, "teacher_share": 0.0, "temperature": 0.0}
    found = []
    for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
        config = tiny_config(rollout=rollout)
        student, optimizer, config, rows = make_student(sharp_model, config)
        teacher = make_teacher(student, optimizer, config)
        rows = [rows[index] for index in order]
        drawn = Drawn(student, teacher, rows, config)
        output = run_step(student, teacher, optimizer, rows, config, rollouts=drawn)
        answers = {rows[rollout.row].id: rollout.completion for rollout in drawn.last}
        found.append((answers, output.loss, optimizer.gradients[0]))
    assert found[0][0] == found[1][0]
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-5)
    assert_close(found[0][2], found[1][2])


@pytest.mark.parametrize("support", [FULL, TOPK], ids=lambda s: s["kind"])
@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jsd"])
def test_the_gap_closes_over_some_steps(sharp_model: Path, name: Any, support: Any) -> None:
    config = tiny_config(steps=18, learning_rate=3e-3, loss={"divergence": name, "support": support})
    student, optimizer, config, rows = make_student(sharp_model, config)
    teacher = make_teacher(student, optimizer, config)
    losses = [run_step(student, teacher, optimizer, rows, config, step).loss for step in range(18)]
    assert sum(losses[-3:]) < 0.85 * sum(losses[:3])


def test_a_step_moves_no_weight_but_the_adapters(sharp_model: Path) -> None:
    config = tiny_config(weights=LORA)
    student, optimizer, config, rows = make_student(sharp_model, config)
    before = weights_of(student)
    run_step(student, make_teacher(student, optimizer, config), optimizer, rows, config)
    moved = {name for name, weight in weights_of(student).items() if not torch.equal(weight, before[name])}
    assert moved and all(".lora_B." in name for name in moved)  # A's gradient is 0 while B is 0


def test_a_loss_that_is_not_finite_changes_no_weight(sharp_model: Path) -> None:
    config = tiny_config()
    student, optimizer, config, rows = make_student(sharp_model, config)
    teacher = make_teacher(student, optimizer, config)
    with torch.no_grad():
        student.model.get_parameter("model.norm.weight")[3] = torch.nan
    before = weights_of(student)
    for run in (
        lambda: run_step(student, teacher, optimizer, rows, config, 4),
        lambda: sft_step(student, optimizer, rows, config, 4),
    ):
        with pytest.raises(TrainingError, match=r"step 5: the loss is not finite"):
            run()
    assert optimizer.gradients == []
    assert all(torch.equal(before[n].nan_to_num(9.0), w.nan_to_num(9.0)) for n, w in weights_of(student).items())


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf")])
def test_check_finite(loss: float) -> None:
    check_finite(0.0, 0)
    with pytest.raises(TrainingError, match="step 1"):
        check_finite(loss, 0)


# ----------------------------------------------------------------------------------------------- SFT


@pytest.mark.parametrize("number", [1, 4])
def test_sft_equals_transformers_own_loss(sharp_model: Path, number: int) -> None:
    student, optimizer, config, rows = make_student(sharp_model, tiny_config(method="sft"))
    output = sft_step(student, optimizer, rows[:number], config, 0)
    base = load_model(sharp_model, dtype="float32")
    losses = []
    for row in rows[:number]:
        ids = torch.tensor([[*row.prompt, *row.target]])
        labels = ids.clone()
        labels[:, : len(row.prompt)] = -100  # the prompt is not learned
        losses.append(base.plain_model(input_ids=ids, labels=labels).loss)
    expected = torch.stack(losses).mean()
    expected.backward()
    assert output.loss == pytest.approx(expected.item(), rel=1e-5)
    assert_close(optimizer.gradients[0], {n: p.grad for n, p in base.model.named_parameters() if p.grad is not None})
    assert output.num_tokens == sum(len(row.target) for row in rows[:number])


def test_sft_depends_neither_on_micro_batches_nor_on_order(sharp_model: Path) -> None:
    found = []
    for size, order in ((32, [0, 1, 2, 3]), (4096, [0, 1, 2, 3]), (100, [3, 1, 0, 2])):
        config = tiny_config(method="sft", microbatch_tokens=size)
        student, optimizer, config, rows = make_student(sharp_model, config)
        output = sft_step(student, optimizer, [rows[index] for index in order], config, 0)
        found.append((output.loss, output.gap_nats, optimizer.gradients[0]))
    for loss, gap, gradients in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        assert gap == pytest.approx(found[0][1], rel=1e-5)
        assert_close(gradients, found[0][2])


def test_sft_learns_its_targets(sharp_model: Path) -> None:
    student, optimizer, config, rows = make_student(
        sharp_model, tiny_config(method="sft", learning_rate=5e-3, steps=12)
    )
    losses = [sft_step(student, optimizer, rows, config, step).loss for step in range(12)]
    assert losses[-1] < 0.5 * losses[0]


def test_rows_carry_what_each_method_needs(sharp_model: Path) -> None:
    student, _, _, rows = make_student(sharp_model, tiny_config(method="sft"))
    assert all(row.teacher_prompt == () and row.target[-1] == student.tokenizer.eos_token_id for row in rows)
    row: TrainRow = rows[0]
    assert student.tokenizer.decode(row.target[:-1]) == "In Lima."
    assert dataclasses.replace(row, id="x").prompt == row.prompt
