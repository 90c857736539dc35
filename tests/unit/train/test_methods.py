"""The baselines: each differs from SFT or SDFT in exactly what its name says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import EXAMPLES, Recorder, gradients_of, shake, tiny_config, weights_of
from torch.nn import functional as F

from selftaught.config import LearnConfig
from selftaught.errors import ConfigError
from selftaught.models.adapters import trainable
from selftaught.models.load import load_model
from selftaught.processes import ALONE
from selftaught.train.anchor import Anchor
from selftaught.train.batch import batch_indices
from selftaught.train.loop import Callbacks, train
from selftaught.train.methods import Distillation, Method, make_method
from selftaught.train.rollouts import drawn_by_teacher
from selftaught.train.rows import prepare

SMALL_ANCHOR = {"rows": 3, "pool": 5, "max_new_tokens": 6}
ALL = ("sdft", "off_policy", "sft", "dft", "cpt", "teacher_samples", "replay", "reinvoke")


def made(path: Path, **values: Any) -> tuple[Method, Recorder, LearnConfig]:
    """A method on the tiny model, ready for its first step."""
    student = load_model(path, dtype="float32", masters=True)
    config, rows = prepare(EXAMPLES, student, tiny_config(**{"anchor": SMALL_ANCHOR, **values}))
    student = trainable(student, config)
    optimizer = Recorder(student, config)
    return make_method(student, optimizer, rows, config, ALONE), optimizer, config


def plain_gradients(
    path: Path, rows: list[tuple[tuple[int, ...], tuple[int, ...]]], dft: bool = False, moved: bool = False
) -> Any:
    """Loss and gradients of (prompt, target) rows by autograd on transformers' own logits."""
    base = load_model(path, dtype="float32")
    if moved:
        shake({name: p.data for name, p in base.model.named_parameters()}, 1)
    losses = []
    for prompt, target in rows:
        logits = base.plain_model(input_ids=torch.tensor([[*prompt, *target]])).logits[0, len(prompt) - 1 : -1]
        nats = F.cross_entropy(logits, torch.tensor(target), reduction="none")
        losses.append(((-nats).exp().detach() * nats if dft else nats).mean())
    loss = torch.stack(losses).mean()
    loss.backward()
    return loss.item(), {name: p.grad for name, p in base.model.named_parameters() if p.grad is not None}


def assert_gradients(ours: dict[str, torch.Tensor], reference: dict[str, torch.Tensor]) -> None:
    for name, gradient in reference.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-4 * gradient.abs().max().item())


@pytest.mark.parametrize("method", ["sft", "dft"])
def test_sft_and_dft_equal_a_plain_reference(sharp_model: Path, method: str) -> None:
    learner, optimizer, _ = made(sharp_model, method=method)
    output = learner.step([0, 1, 3], 0)
    rows = [(learner.rows[index].prompt, learner.rows[index].target) for index in (0, 1, 3)]
    loss, gradients = plain_gradients(sharp_model, rows, dft=method == "dft")
    assert output.loss == pytest.approx(loss, rel=1e-4)
    assert_gradients(optimizer.gradients[0], gradients)


def test_off_policy_learns_from_the_teachers_completions_to_the_end(sharp_model: Path) -> None:
    learner, _, config = made(sharp_model, method="off_policy", rollout={"teacher_share": 0.0, "max_new_tokens": 6})
    assert isinstance(learner, Distillation) and learner.anchor is not None
    assert all(drawn_by_teacher(config, step) for step in range(4))
    on_policy, _, _ = made(sharp_model, method="sdft", rollout={"teacher_share": 1.0, "max_new_tokens": 6})
    assert on_policy.step([0, 1, 2, 3], 0) == learner.step([0, 1, 2, 3], 0), "at the first step they are the same"


def test_continued_pre_training_sees_each_document_and_nothing_else(sharp_model: Path) -> None:
    learner, optimizer, config = made(sharp_model, method="cpt", batch_size=2, steps=None, epochs=3)
    texts = [learner.student.tokenizer.decode(row.target[:-1]) for row in learner.rows]
    assert texts == list(dict.fromkeys(example.context for example in EXAMPLES if example.context))
    assert config.total_steps == 3 and config.batch_size == 2
    learner.step([0, 1], 0)
    rows = [(row.prompt, row.target) for row in learner.rows]
    assert_gradients(optimizer.gradients[0], plain_gradients(sharp_model, rows)[1])


def test_continued_pre_training_needs_documents(sharp_model: Path) -> None:
    bare = [example for example in EXAMPLES if not example.context]
    with pytest.raises(ConfigError, match="no row has a document"):
        prepare(bare, load_model(sharp_model, dtype="float32"), tiny_config(method="cpt"))


def test_teacher_samples_are_what_the_untaught_teacher_says(sharp_model: Path) -> None:
    learner, optimizer, config = made(
        sharp_model, method="teacher_samples", rollout={"temperature": 0.0, "max_new_tokens": 6}
    )
    base, indices = load_model(sharp_model, dtype="float32"), [2, 0]
    said = []
    for row in (learner.rows[index] for index in indices):
        ids = list(row.teacher_prompt)
        for _ in range(6):
            with torch.no_grad():
                ids.append(int(base.plain_model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] in base.stop_ids:
                break
        said.append((row.prompt, tuple(ids[len(row.teacher_prompt) :])))
    shake(optimizer.masters, 1)  # the student moves, its teacher does not
    learner.step(indices, 0)
    assert_gradients(optimizer.gradients[0], plain_gradients(sharp_model, said, moved=True)[1])
    assert config.shows_teacher and not config.distils


def test_replay_mixes_the_bases_own_answers_in(sharp_model: Path) -> None:
    learner, optimizer, config = made(sharp_model, method="replay")
    learner.step([1], 2)
    base = load_model(sharp_model, dtype="float32")
    general = Anchor(base, config.anchor, config.seed).general
    rows = [(learner.rows[1].prompt, learner.rows[1].target)]
    rows += [(general[i].prompt, general[i].completion) for i in batch_indices(5, 3, 2, config.seed)]
    assert_gradients(optimizer.gradients[0], plain_gradients(sharp_model, rows)[1])


def test_the_length_reported_is_that_of_what_was_learned_from(sharp_model: Path) -> None:
    learner, _, config = made(sharp_model, method="replay")
    output = learner.step([0, 1], 0)
    assert output.num_rows == 2 + config.anchor.rows and output.num_tokens >= output.num_rows


def test_reinvoke_is_sft_at_first_and_the_anchor_alone_after_that(sharp_model: Path) -> None:
    learner, optimizer, config = made(sharp_model, method="reinvoke", reinvoke_share=0.5, steps=4)
    plain, plain_optimizer, _ = made(sharp_model, method="sft", steps=4)
    for step in (0, 1):
        assert learner.step([0, 2], step) == plain.step([0, 2], step)
        assert_gradients(optimizer.gradients[step], plain_optimizer.gradients[step])
    anchor = Anchor(load_model(sharp_model, dtype="float32"), config.anchor, config.seed)
    expected = anchor.backward(plain.student, 2, 512)
    gradients = gradients_of(plain_optimizer)
    output = learner.step([0, 2], 2)
    assert output.anchor_nats == pytest.approx(expected, rel=1e-4) and expected > 0
    assert output.num_tokens == anchor.num_tokens(2) and output.num_rows == config.anchor.rows
    assert output.gap_nats is None, "the guard is not to take it for the gap of before"
    assert_gradients(optimizer.gradients[2], gradients)


@pytest.mark.parametrize("method", ["replay", "reinvoke"])
def test_what_needs_general_prompts_says_so(method: str) -> None:
    with pytest.raises(ConfigError, match=rf"anchor.rows: {method} needs general prompts"):
        tiny_config(method=method).resolve(4, 6)


class Stop(Exception):
    """Ends a run as a kill would."""


@pytest.mark.parametrize("method", ALL)
def test_every_method_trains_and_resumes_bit_for_bit(sharp_model: Path, tmp_path: Path, method: str) -> None:
    config = tiny_config(method=method, anchor=SMALL_ANCHOR, checkpoint_every=2, steps=4)

    def stop(report: Any) -> None:
        if report.step == 3:
            raise Stop

    whole, record = train(sharp_model, EXAMPLES, config)
    with pytest.raises(Stop):
        train(sharp_model, EXAMPLES, config, tmp_path, Callbacks(stop))
    resumed, again = train(sharp_model, EXAMPLES, config, tmp_path)
    assert record.steps == again.steps and len(record.steps) == 4
    assert all(torch.equal(weight, weights_of(resumed)[name]) for name, weight in weights_of(whole).items())
