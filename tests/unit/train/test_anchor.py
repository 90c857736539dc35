"""The anchor: rows the base wrote itself, and the pull back towards it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_run import (
    LORA,
    gradients_of,
    make_student,
    make_teacher,
    run_step,
    same_prompts,
    shake,
    tiny_config,
    weights_of,
)

from selftaught.config import AnchorConfig, LearnConfig
from selftaught.losses.divergence import divergence
from selftaught.models.load import LanguageModel, load_model
from selftaught.processes import ALONE
from selftaught.train.anchor import OPENERS, Anchor, Kept, answered, draw_rows, user_turn
from selftaught.train.batch import batch_indices
from selftaught.train.methods import Distillation, make_method
from selftaught.train.rows import prepare, rehearsal_prompts, shown_prompts
from selftaught.types import Example, Message

CONFIG = AnchorConfig(rows=3, pool=7, max_new_tokens=6)


@pytest.fixture(scope="module")
def base(sharp_model: Path) -> LanguageModel:
    return load_model(sharp_model, dtype="float32")


def test_rows_follow_from_the_seed(base: LanguageModel) -> None:
    first, again, other = (draw_rows(base, CONFIG, seed) for seed in (1, 1, 2))
    assert [(r.prompt, r.completion) for r in first] == [(r.prompt, r.completion) for r in again]
    assert all(torch.equal(a.hidden, b.hidden) for a, b in zip(first, again, strict=True))
    assert {(r.prompt, r.completion) for r in first}.isdisjoint({(r.prompt, r.completion) for r in other})
    assert len(first) == 7 and len({r.prompt for r in first}) == 7


def test_a_row_is_a_turn_of_the_chat_template_and_the_bases_answer(base: LanguageModel) -> None:
    opening, closing = user_turn(base)
    assert base.tokenizer.decode(opening) == "<|im_start|>user\n"
    assert base.tokenizer.decode(closing) == "<|im_end|>\n<|im_start|>assistant\n"
    for number, row in enumerate(draw_rows(base, CONFIG, 3)):
        opener = tuple(base.tokenizer(OPENERS[number % len(OPENERS)])["input_ids"])
        turn = row.prompt[len(opening) : -len(closing)]
        assert row.prompt == (*opening, *turn, *closing)
        assert turn[: len(opener)] == opener
        assert len(opener) < len(turn) <= len(opener) + 6 and not base.stop_ids & set(turn)
        assert 0 < len(row.completion) <= 6
        with torch.no_grad():
            logits = base.plain_model(input_ids=torch.tensor([[*row.prompt, *row.completion]])).logits
        torch.testing.assert_close(
            base.head(row.hidden).detach(), logits[0, len(row.prompt) - 1 : -1], rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("weights", [{"kind": "full"}, LORA], ids=lambda w: w["kind"])
def test_the_base_itself_is_at_anchor(sharp_model: Path, weights: object) -> None:
    student, optimizer, _, _ = make_student(sharp_model, tiny_config(weights=weights))
    anchor = Anchor(student, CONFIG, 0)
    assert abs(anchor.backward(student, 0, 512)) < 1e-5
    optimizer.step(0)
    assert sum(float(g.square().sum()) for g in optimizer.gradients[0].values()) ** 0.5 < 1e-3


@pytest.mark.parametrize("weight", [1.0, 2.5])
def test_value_and_gradient_equal_a_plain_reference(sharp_model: Path, base: LanguageModel, weight: float) -> None:
    student, optimizer, _, _ = make_student(sharp_model, tiny_config())
    anchor = Anchor(student, CONFIG.model_copy(update={"weight": weight}), 0)
    shake(optimizer.masters, 1)
    value = anchor.backward(student, 2, 32)
    rows = draw_rows(base, CONFIG, 0)
    reference = load_model(sharp_model, dtype="float32")
    shake({name: p.data for name, p in reference.model.named_parameters()}, 1)
    total = torch.zeros(())
    for index in batch_indices(7, 3, 2, 0):
        ids, start = torch.tensor([[*rows[index].prompt, *rows[index].completion]]), len(rows[index].prompt) - 1
        with torch.no_grad():
            base_logits = base.plain_model(input_ids=ids).logits[0, start:-1]
        own_logits = reference.plain_model(input_ids=ids).logits[0, start:-1]
        total = total + divergence("forward_kl", base_logits, own_logits).mean() / 3
    (weight * total).backward()
    assert value == pytest.approx(total.item(), rel=1e-3), "what is reported does not depend on the weight"
    assert value > 0.01
    gradients = gradients_of(optimizer)
    for name, p in reference.model.named_parameters():
        assert p.grad is not None
        torch.testing.assert_close(gradients[name], p.grad, rtol=1e-3, atol=1e-3 * p.grad.abs().max().item())


def test_it_keeps_holding_to_the_base_when_the_head_moves(sharp_model: Path) -> None:
    """The embeddings are tied to the head and trained: the anchor must compare with the head as it was."""
    student, optimizer, _, _ = make_student(sharp_model, tiny_config())
    anchor = Anchor(student, CONFIG, 0)
    head_only = {"w": optimizer.masters["model.embed_tokens.weight"]}
    shake(head_only, 4)
    assert anchor.backward(student, 0, 512) > 0.01


def test_steps_with_the_anchor_bring_a_strayed_student_back(sharp_model: Path) -> None:
    """The teacher has nothing to say (same prompt, live), so only the anchor pulls."""
    config = tiny_config(teacher={"kind": "live"}, learning_rate=2e-3, steps=15)
    student, optimizer, config, rows = make_student(sharp_model, config)
    anchor = Anchor(student, AnchorConfig(rows=6, pool=6, max_new_tokens=6), 0)
    shake(optimizer.masters, 1)
    teacher = make_teacher(student, optimizer, config)
    nats = []
    for step in range(15):
        output = run_step(student, teacher, optimizer, same_prompts(rows), config, step, anchor)
        assert output.anchor_nats is not None
        nats.append(output.anchor_nats)
    assert nats[0] > 0.05
    assert nats[-1] < 0.5 * nats[0]


def test_without_an_anchor_there_is_no_value(sharp_model: Path) -> None:
    student, optimizer, config, rows = make_student(sharp_model, tiny_config())
    before = weights_of(student)
    output = run_step(student, make_teacher(student, optimizer, config), optimizer, rows, config)
    assert output.anchor_nats is None
    assert any(not torch.equal(before[name], weight) for name, weight in weights_of(student).items())


# ------------------------------------------------------------------------------------------- rehearsal


LEARNED = [
    Example(f"old-{number}", (Message("user", f"Old question {number}?"),), "An old answer.") for number in range(5)
]


def test_prompts_of_earlier_skills_are_token_ids_with_room_for_an_answer(base: LanguageModel) -> None:
    prompts, length = rehearsal_prompts(base, LEARNED)
    assert [base.tokenizer.decode(prompt) for prompt in prompts] == [
        f"<|im_start|>user\n{example.question}<|im_end|>\n<|im_start|>assistant\n" for example in LEARNED
    ]
    assert length == 23, "the demonstration has 14 bytes and a stop token, and half as much is added"
    assert rehearsal_prompts(base, []) == ([], 0)


@pytest.mark.parametrize("learned_before", [False, True])
def test_rehearsed_rows_join_the_anchors_own(sharp_model: Path, base: LanguageModel, learned_before: bool) -> None:
    """Value of a step = mean over its own rows and the rehearsed ones together, as plain models have it.

    A model that has learned before is held to its origin on general prompts, and to itself on the rehearsed ones.
    """
    prompts, length = rehearsal_prompts(base, LEARNED)
    config = CONFIG
    student, optimizer, _, _ = make_student(sharp_model, tiny_config())
    origin = base
    if learned_before:
        origin = load_model(sharp_model, dtype="float32")
        shake({name: p.data for name, p in origin.model.named_parameters()}, 7)
    anchor = Anchor(student, config, 0, ALONE, [Kept(prompts, length, 2)], origin if learned_before else None)
    shake(optimizer.masters, 1)
    value = anchor.backward(student, 1, 64)
    reference = load_model(sharp_model, dtype="float32")
    shake({name: p.data for name, p in reference.model.named_parameters()}, 1)
    own, old = draw_rows(origin, config, 0), answered(base, prompts, length, 0, ALONE)
    rows = [(origin, own[index]) for index in batch_indices(7, 3, 1, 0)]
    rows += [(base, old[index]) for index in batch_indices(5, 2, 1, 0)]
    assert {row.prompt for _, row in rows} & set(prompts)
    total = 0.0
    for held_to, row in rows:
        ids, start = torch.tensor([[*row.prompt, *row.completion]]), len(row.prompt) - 1
        with torch.no_grad():
            before, after = (m.plain_model(input_ids=ids).logits[0, start:-1] for m in (held_to, reference))
        total += float(divergence("forward_kl", before, after).mean()) / 5
    assert value == pytest.approx(total, rel=1e-3)


def test_rehearsal_needs_no_rows_of_the_anchors_own(sharp_model: Path, base: LanguageModel) -> None:
    prompts, length = rehearsal_prompts(base, LEARNED)
    student, optimizer, _, _ = make_student(sharp_model, tiny_config())
    anchor = Anchor(student, AnchorConfig(rows=0), 0, ALONE, [Kept(prompts, length, 2)])
    shake(optimizer.masters, 1)
    assert anchor.backward(student, 0, 64) > 0.01


def test_a_pool_bounds_what_is_rehearsed(sharp_model: Path, base: LanguageModel) -> None:
    prompts, length = rehearsal_prompts(base, LEARNED)
    student, _, _, _ = make_student(sharp_model, tiny_config())
    anchor = Anchor(student, AnchorConfig(rows=0, pool=2), 0, ALONE, [Kept(prompts, length, 2)])
    assert [row.prompt for row in anchor._held[0].rows] == [prompts[0], prompts[2]], "evenly taken"


def test_no_more_is_drawn_than_the_steps_need(sharp_model: Path, base: LanguageModel) -> None:
    prompts, length = rehearsal_prompts(base, LEARNED)
    config = AnchorConfig(rows=3, pool=100, max_new_tokens=4)
    anchor = Anchor(base, config, 0, ALONE, [Kept(prompts, length, 1)], num_steps=2)
    assert [len(held.rows) for held in anchor._held] == [6, 2]
    assert {row.prompt for row in anchor._held[1].rows} == {prompts[0], prompts[2]}
    assert len(Anchor(base, config.model_copy(update={"pool": 4}), 0, num_steps=2).general) == 4


# ----------------------------------------------------------------------------- following what is shown


TAUGHT = [
    Example("a", (Message("user", "First?"),), "One.", "A document.", split="train"),
    Example("b", (Message("user", "Second?"),), "Two.", split="train"),
    Example("c", (Message("user", "Third?"),), "One.", split="train"),
    Example("d", (Message("user", "Asked?"),), "Three.", split="test"),
]


def resolved(**anchor: int) -> LearnConfig:
    return tiny_config(anchor=anchor).resolve(3, 5)


def test_shown_prompts_show_each_row_what_others_say(base: LanguageModel) -> None:
    config = resolved()
    shown = [base.tokenizer.decode(prompt) for prompt in shown_prompts(base, TAUGHT, config, 100)]
    pairs = [("First", "Two."), ("Second", "One."), ("Third", "Two."), ("Second", "One.")]
    turn = "<|im_start|>user\n{0}?<|im_end|>\n<|im_start|>assistant\n{1}<|im_end|>\n"
    expected = [2 * turn.format(*pair) + turn.format(pair[0], "").partition("<|im_end|>\n<|im_start|>assistant")[0]
                + "<|im_end|>\n<|im_start|>assistant\n" for pair in pairs]  # fmt: skip
    assert sorted(shown) == sorted(expected), "never its own, nor one that says the same; no document; no test row"
    assert len(shown_prompts(base, TAUGHT, config, 2)) == 2
    assert shown_prompts(base, TAUGHT[:1], config, 100) == shown_prompts(base, [], config, 100) == []


def test_prompts_that_leave_no_room_for_an_answer_are_not_shown(base: LanguageModel) -> None:
    config = resolved()
    long = Example("e", (Message("user", "x" * (base.max_tokens // 2)),), "Four.", split="train")
    shown = shown_prompts(base, [*TAUGHT, long], config, 100)
    assert shown_prompts(base, TAUGHT, config, 100)[0] in shown
    assert all(len(prompt) + config.completion_limit <= base.max_tokens for prompt in shown)


@pytest.mark.parametrize("shown", [0, 2])
def test_a_run_is_held_to_what_it_was_shown(sharp_model: Path, base: LanguageModel, shown: int) -> None:
    student, optimizer, _, _ = make_student(sharp_model, resolved())
    config, rows = prepare(TAUGHT, student, resolved(rows=0, shown=shown))
    method = make_method(student, optimizer, rows, config, ALONE, taught=TAUGHT)
    assert isinstance(method, Distillation)
    if not shown:
        assert method.anchor is None
        return
    assert method.anchor is not None
    (held,) = method.anchor._held
    prompts = shown_prompts(base, TAUGHT, config, 100)
    assert [row.prompt for row in held.rows] == prompts and held.rows_a_step == 2
    assert held.rows[0].completion == answered(base, prompts, config.completion_limit, config.seed, ALONE)[0].completion
