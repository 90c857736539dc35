"""Who draws a step's completions, from what, and what is kept of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import EXAMPLES, LORA, Drawn, make_student, make_teacher, run_step, tiny_config, weights_of
from torch import Tensor

from selftaught.config import LearnConfig
from selftaught.models.fast_decoder import make_decoder
from selftaught.models.load import LanguageModel
from selftaught.models.prefill import FreshPrompts
from selftaught.models.teacher import TeacherModel
from selftaught.processes import ProcessGroup
from selftaught.rollout.sampler import Sampling
from selftaught.rollout.torch_sampler import sample
from selftaught.train import rollouts as module
from selftaught.train.batch import TrainRow, batch_indices, row_seed
from selftaught.train.loop import train
from selftaught.train.optim import Optimizer
from selftaught.train.rollouts import Rollout, Rollouts, drawn_by_teacher

TEACHERS: list[dict[str, Any]] = [{"kind": "frozen"}, {"kind": "ema"}, {"kind": "live"}]
BY_TEACHER = {"max_new_tokens": 6, "teacher_share": 1.0, "teacher_draws": 2}


def made(folder: Path, **values: Any) -> tuple[LanguageModel, TeacherModel, list[TrainRow], LearnConfig, Optimizer]:
    student, optimizer, config, rows = make_student(folder, tiny_config(**values))
    return student, make_teacher(student, optimizer, config), rows, config, optimizer


def full_logits(model: LanguageModel, prompt: Sequence[int], completion: Sequence[int]) -> Tensor:
    """What predicts each completion token, from transformers itself, one row at a time: [T, V]."""
    with torch.no_grad():
        logits = model.plain_model(input_ids=torch.tensor([[*prompt, *completion]]), use_cache=False).logits
    return logits[0, len(prompt) - 1 : -1].float()


def assert_same(ours: Sequence[Rollout], other: Sequence[Rollout]) -> None:
    """Bit for bit."""
    assert [(one.row, one.completion) for one in ours] == [(one.row, one.completion) for one in other]
    for a, b in zip(ours, other, strict=True):
        assert torch.equal(a.teacher_states, b.teacher_states)


@pytest.mark.parametrize(
    ("share", "fall", "last"), [(0.8, 1.0, 0.0), (1.0, 0.5, 0.5), (0.6, 0.0, 0.6), (0.0, 0.5, 0.0)]
)
def test_the_teachers_share_of_the_steps_falls_linearly(share: float, fall: float, last: float) -> None:
    config = tiny_config(steps=20, rollout={"teacher_share": share, "teacher_share_fall": fall})
    shares = [share + (last - share) * step / 20 for step in range(20)]
    for steps in range(21):  # so many of the first steps are the teacher's as their shares add up to
        by_teacher = sum(drawn_by_teacher(config, step) for step in range(steps))
        assert abs(by_teacher - sum(shares[:steps])) <= 0.5 + 1e-9


@pytest.mark.parametrize("teacher_kind", TEACHERS, ids=lambda t: t["kind"])
@pytest.mark.parametrize(("share", "step", "teachers_turn"), [(0.0, 0, 0), (0.5, 0, 1), (0.5, 1, 0), (1.0, 1, 1)])
def test_who_draws_is_who_is_asked(
    sharp_model: Path, share: float, step: int, teachers_turn: int, teacher_kind: Any
) -> None:
    """Greedily, each token is the likeliest after the prompt of whoever is to draw it."""
    rollout = {"max_new_tokens": 6, "teacher_share": share, "temperature": 0.0, "teacher_share_fall": 0.0}
    student, teacher, rows, config, _ = made(sharp_model, rollout=rollout, teacher=teacher_kind)
    drawn = Rollouts(student, teacher, rows, config).draw([2, 0, 3, 1], step)
    assert sorted(one.row for one in drawn) == [0, 1, 2, 3]
    for one in drawn:
        ids, row = one.completion.ids, rows[one.row]
        likeliest = [
            tuple(full_logits(student, prompt, ids).argmax(-1).tolist()) for prompt in (row.prompt, row.teacher_prompt)
        ]
        assert ids == likeliest[teachers_turn] != likeliest[not teachers_turn]
        assert one.completion.ended == (ids[-1] in student.stop_ids) and (one.completion.ended or len(ids) == 6)
        teachers = full_logits(student, row.teacher_prompt, ids)
        torch.testing.assert_close(student.head(one.teacher_states).detach(), teachers, rtol=1e-3, atol=1e-3)


def test_the_students_rows_have_seeds_of_their_step_and_place(sharp_model: Path) -> None:
    rollout = {"max_new_tokens": 6, "teacher_share": 0.0, "temperature": 0.9, "top_p": 0.8}
    student, teacher, rows, config, _ = made(sharp_model, rollout=rollout, seed=4)
    drawn = Rollouts(student, teacher, rows, config).draw([3, 3, 1], 7)
    prompts = FreshPrompts(make_decoder(student), [rows[index].prompt for index in (3, 3, 1)])
    expected = sample(prompts, Sampling(6, 0.9, 0.8), [row_seed(4, 7, place) for place in range(3)])
    assert [one.completion for one in drawn if one.row == 3] == expected[:2]
    assert [one.completion for one in drawn if one.row == 1] == expected[2:]
    assert expected[0] != expected[1]


@pytest.mark.parametrize("teacher_kind", TEACHERS[1:], ids=lambda t: t["kind"])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_processes_draw_the_rows_that_one_would(sharp_model: Path, share: float, teacher_kind: Any) -> None:
    rollout = {"max_new_tokens": 6, "teacher_share": share, "temperature": 1.0}
    student, teacher, rows, config, _ = made(sharp_model, rollout=rollout, teacher=teacher_kind)
    whole = Rollouts(student, teacher, rows, config).draw([2, 0, 3, 1], 1)
    groups = [ProcessGroup(rank, 3) for rank in range(3)]
    parts = [Rollouts(student, teacher, rows, config, group).draw([2, 0, 3, 1], 1) for group in groups]
    assert max(map(len, parts)) <= 2
    everyones = {one.row: one for part in parts for one in part}
    assert sum(map(len, parts)) == len(everyones) == len(whole) == 4
    for one in whole:
        assert everyones[one.row].completion == one.completion
        torch.testing.assert_close(everyones[one.row].teacher_states, one.teacher_states, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------------------------- the teacher's, kept


@pytest.mark.parametrize("group_rows", [1, 3, 8])
def test_kept_draws_do_not_depend_on_the_step_that_first_needs_them(
    sharp_model: Path, group_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GROUP_ROWS", group_rows)
    student, teacher, rows, config, _ = made(sharp_model, steps=40, batch_size=2, rollout=BY_TEACHER)
    early, late = (Rollouts(student, teacher, rows, config) for _ in range(2))
    first = {index: early.draw([index], 0)[0] for index in range(4)}
    for index in (3, 1, 0, 2):  # four steps on, both draws of every row have had their turn
        again, other = late.draw([index], 4)[0], late.draw([index], 2)[0]
        assert_same([again], [first[index]])
        assert late.draw([index], 4)[0] is again, "kept, not drawn anew"
        assert other.completion.ids != again.completion.ids


def test_draws_are_used_in_turn_where_every_other_step_is_the_students() -> None:
    rollout = {"max_new_tokens": 6, "teacher_share": 0.5, "teacher_share_fall": 0.0, "teacher_draws": 2}
    config = tiny_config(steps=8, batch_size=4, rollout=rollout)  # four rows: each step is an epoch
    by_teacher = [step for step in range(8) if drawn_by_teacher(config, step)]
    numbers = [{number for number, _ in module.wanted_draws(config, 4, range(4), step)} for step in by_teacher]
    assert by_teacher == [0, 2, 4, 6] and numbers == [{0}, {1}, {0}, {1}]


@pytest.mark.parametrize("group_rows", [1, 3, 8])
def test_the_teacher_draws_what_the_run_needs_once_and_no_more(
    sharp_model: Path, group_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GROUP_ROWS", group_rows)
    rollout = {**BY_TEACHER, "teacher_draws": 3, "teacher_share": 1.0, "teacher_share_fall": 1.0}
    student, teacher, rows, config, _ = made(sharp_model, steps=8, batch_size=2, rollout=rollout)
    drawn: list[tuple[int, int]] = []
    plain = Rollouts._from_teacher

    def noted(self: Rollouts, indices: Sequence[int], numbers: Sequence[int], stream: str) -> list[Rollout]:
        drawn.extend(zip(numbers, indices, strict=True))
        return plain(self, indices, numbers, stream)

    monkeypatch.setattr(Rollouts, "_from_teacher", noted)
    rollouts, needed = Rollouts(student, teacher, rows, config), []
    for step in range(8):
        indices = batch_indices(len(rows), 2, step, config.seed)
        if drawn_by_teacher(config, step):
            needed += module.wanted_draws(config, len(rows), indices, step)
        rollouts.draw(indices, step)
    assert drawn == list(dict.fromkeys(needed)), "in the order of need"
    assert 0 < len(drawn) < 3 * len(rows)


@pytest.mark.parametrize(("per_prompt", "number"), [(1, 2), (2, 2), (2, 4), (3, 2), (2, 3)])
def test_each_completion_of_a_row_takes_the_next_of_its_draws(sharp_model: Path, per_prompt: int, number: int) -> None:
    rollout = {**BY_TEACHER, "temperature": 1.0, "per_prompt": per_prompt, "teacher_draws": number}
    student, teacher, rows, config, _ = made(sharp_model, steps=1000, batch_size=2 * per_prompt, rollout=rollout)
    rollouts = Rollouts(student, teacher, rows, config)
    taken: dict[int, list[Rollout]] = {0: [], 1: []}
    for epoch in range(6):  # two steps each
        for one in rollouts.draw([index for index in (0, 1) for _ in range(per_prompt)], 2 * epoch):
            taken[one.row].append(one)
    number = max(number, per_prompt)  # no completion twice in a step
    for index in (0, 1):
        assert len(taken[index]) == 6 * per_prompt
        distinct = taken[index][:number]
        assert len({one.completion.ids for one in distinct}) > 1
        assert all(one is distinct[place % number] for place, one in enumerate(taken[index]))


@pytest.mark.parametrize("weights", [{"kind": "full"}, LORA], ids=lambda w: w["kind"])
def test_with_no_memory_nothing_is_kept_and_all_is_as_before(sharp_model: Path, weights: Any) -> None:
    values = {"steps": 40, "batch_size": 2, "rollout": BY_TEACHER, "weights": weights}
    student, teacher, rows, config, optimizer = made(sharp_model, **values)
    _, poor_teacher, _, poor_config, _ = made(sharp_model, **values, prefix_cache_mib=0)
    rich, poor = Rollouts(student, teacher, rows, config), Rollouts(student, poor_teacher, rows, poor_config)
    for step, indices in enumerate([[0, 1], [2, 3], [1, 3], [0, 2], [0, 1]]):
        assert_same(poor.draw(indices, step), rich.draw(indices, step))
        assert poor._kept_bytes == 0 and not poor._kept
        assert poor_teacher._store is not None and poor_teacher._store.used_bytes == 0
    assert rich._kept_bytes > 0 and teacher._store is not None and teacher._store.used_bytes > 0
    assert run_step(student, teacher, optimizer, rows, config).loss > 0


def test_the_draws_that_were_not_used_for_the_longest_time_make_room(
    sharp_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GROUP_ROWS", 1)
    monkeypatch.setattr(module, "_size", lambda rollouts: 400 << 10)  # so that two groups fit a MiB
    student, teacher, rows, config, _ = made(sharp_model, steps=40, rollout=BY_TEACHER, prefix_cache_mib=1)
    rollouts = Rollouts(student, teacher, rows, config)
    asked: list[int] = []
    plain = Rollouts._from_teacher

    def noted(self: Rollouts, indices: Sequence[int], *rest: Any) -> list[Rollout]:
        asked.extend(indices)
        return plain(self, indices, *rest)

    monkeypatch.setattr(Rollouts, "_from_teacher", noted)
    for index in (0, 1, 0, 2, 0, 1):  # 2 drops 1, which was not used since
        rollouts.draw([index], 0)
        assert rollouts._kept_bytes <= 1 << 20
    assert asked == [0, 1, 2, 1]
    drawn = rollouts.draw([0, 1, 2, 3], 0)
    assert_same(drawn, Rollouts(student, teacher, rows, config).draw([0, 1, 2, 3], 0))


def test_states_of_kept_draws_are_the_teachers(sharp_model: Path) -> None:
    student, teacher, rows, config, _ = made(sharp_model, rollout=BY_TEACHER)
    for one in Rollouts(student, teacher, rows, config).draw([0, 1, 2, 3], 0):
        expected = full_logits(student, rows[one.row].teacher_prompt, one.completion.ids)
        torch.testing.assert_close(student.head(one.teacher_states).detach(), expected, rtol=1e-3, atol=1e-3)
        states = one.teacher_states
        assert states.untyped_storage().nbytes() == states.nbytes, "it holds no other row's memory"


def test_a_moving_teacher_draws_afresh(sharp_model: Path) -> None:
    student, teacher, rows, config, _ = made(sharp_model, rollout=BY_TEACHER, teacher={"kind": "ema"}, steps=40)
    rollouts = Rollouts(student, teacher, rows, config)
    drawn = [tuple(r.completion.ids for r in rollouts.draw([0, 1, 2, 3], step)) for step in (0, 1, 0)]
    assert drawn[0] == drawn[2] != drawn[1]
    assert not rollouts._kept


# --------------------------------------------------------------------------------- only the first tokens


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("prefix_tokens", [1, 3, 50])
def test_prefix_tokens_bound_what_is_drawn_and_learned(sharp_model: Path, share: float, prefix_tokens: int) -> None:
    rollout = {"max_new_tokens": 6, "teacher_share": share}
    student, teacher, rows, config, optimizer = made(sharp_model, rollout={**rollout, "prefix_tokens": prefix_tokens})
    whole = Rollouts(student, teacher, rows, with_rollout(config, rollout)).draw([0, 1, 2, 3], 0)
    drawn = Drawn(student, teacher, rows, config)
    output = run_step(student, teacher, optimizer, rows, config, rollouts=drawn)
    expected = [one.completion.ids[:prefix_tokens] for one in whole]
    assert [one.completion.ids for one in drawn.last] == expected, "the first tokens of the same completions"
    assert output.num_tokens == sum(map(len, expected))
    assert max(map(len, expected)) == min(prefix_tokens, 6)
    assert config.rollout_limit == min(prefix_tokens, 6) and config.completion_limit == 6


def with_rollout(config: LearnConfig, rollout: dict[str, Any]) -> LearnConfig:
    """The same configuration with another rollout."""
    return config.model_copy(update={"rollout": tiny_config(rollout=rollout).rollout})


# ------------------------------------------------------------------------------------------ speculative


@pytest.mark.parametrize(
    "values",
    [{}, {"teacher": {"kind": "ema", "rate": 0.2}}, {"weights": LORA}, {"rollout": {"prefix_tokens": 4}}],
    ids=["frozen", "ema", "lora", "prefix"],
)
def test_a_speculative_run_is_the_same_run(sharp_model: Path, values: dict[str, Any]) -> None:
    """In float32, where a token run with others has the same likeliest neighbours as one run alone."""
    found = []
    for speculative in (False, True):
        rollout = {"max_new_tokens": 8, "teacher_share": 0.5, "temperature": 0.7, **values.get("rollout", {})}
        config = tiny_config(**{**values, "steps": 6, "rollout": {**rollout, "speculative": speculative}})
        model, record = train(sharp_model, EXAMPLES, config)
        found.append((record.steps, record.tokens, weights_of(model)))
    assert found[0][:2] == found[1][:2]
    assert all(torch.equal(weight, found[1][2][name]) for name, weight in found[0][2].items())


def test_guesses_are_the_demonstration_and_then_what_was_said_last(
    sharp_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout = {"max_new_tokens": 6, "teacher_share": 0.0, "speculative": True}
    student, teacher, rows, config, _ = made(sharp_model, rollout=rollout)
    seen: list[Any] = []

    def noted(prompts: Any, sampling: Sampling, seeds: Any, drafts: Any = None) -> Any:
        seen.append(drafts)
        return sample(prompts, sampling, seeds, drafts)

    monkeypatch.setattr(module, "sample", noted)
    rollouts = Rollouts(student, teacher, rows, config)
    first = {one.row: one.completion.ids for one in rollouts.draw([2, 0], 0)}
    rollouts.draw([0, 1], 1)
    assert sorted(seen[0]) == sorted([rows[2].target, rows[0].target])
    assert sorted(seen[1]) == sorted([first[0], rows[1].target])
    Rollouts(student, teacher, rows, with_rollout(config, {**rollout, "speculative": False})).draw([0], 0)
    assert seen[2] is None


# ---------------------------------------------------------------------------------- begun by the student


@pytest.mark.parametrize("teacher_kind", TEACHERS, ids=lambda t: t["kind"])
@pytest.mark.parametrize("bound", [1e-6, 0.02, 0.2, 0.999])
def test_a_restarted_completion_is_the_students_up_to_its_first_unlikely_token(
    sharp_model: Path, bound: float, teacher_kind: Any
) -> None:
    rollout = {"max_new_tokens": 12, "temperature": 0.0, "teacher_share": 0.0}
    values = {"teacher": teacher_kind, "loss": {"teacher_temperature": 4.0}}
    student, teacher, rows, config, _ = made(sharp_model, rollout=rollout, **values)
    plain = Rollouts(student, teacher, rows, config).draw([2, 0, 3, 1], 1)
    restarting = config.model_copy(update={"rollout": config.rollout.model_copy(update={"restart": bound})})
    shown = Rollouts(student, teacher, rows, restarting).draw([2, 0, 3, 1], 1)
    cuts = []
    for before, after in zip(plain, shown, strict=True):
        ids, prompt = before.completion.ids, rows[before.row].teacher_prompt
        probabilities = (full_logits(student, prompt, ids) / 4).softmax(-1)
        unlikely = [place for place, token in enumerate(ids) if probabilities[place, token] < bound]
        cut = min(unlikely, default=len(ids))
        cuts.append(cut)
        now = after.completion.ids
        logits = full_logits(student, prompt, now)
        assert after.row == before.row and now[:cut] == ids[:cut]
        assert list(now[cut:]) == logits.argmax(-1).tolist()[cut:], "greedily, the teacher's likeliest"
        assert after.completion.ended == (now[-1] in student.stop_ids) and (after.completion.ended or len(now) == 12)
        torch.testing.assert_close(student.head(after.teacher_states).detach(), logits, rtol=1e-3, atol=1e-3)
    whole = [len(one.completion.ids) for one in plain]
    assert (cuts == whole) == (bound == 1e-6), "the lowest bound cuts none, the others some"


@pytest.mark.parametrize("teacher_kind", TEACHERS, ids=lambda t: t["kind"])
def test_restarts_have_seeds_of_their_step_and_place(sharp_model: Path, teacher_kind: Any) -> None:
    rollout = {"max_new_tokens": 6, "teacher_share": 0.0, "temperature": 0.9, "restart": 0.5}
    student, teacher, rows, config, _ = made(sharp_model, rollout=rollout, teacher=teacher_kind, seed=4)
    first, again, other = (Rollouts(student, teacher, rows, config).draw([3, 0, 3, 1], step) for step in (7, 7, 8))
    assert_same(first, again)
    assert [one.completion for one in first] != [one.completion for one in other]
    groups = [ProcessGroup(rank, 2) for rank in range(2)]
    parts = [one for group in groups for one in Rollouts(student, teacher, rows, config, group).draw([3, 0, 3, 1], 7)]
    assert sorted((one.row, one.completion.ids) for one in parts) == sorted(
        (one.row, one.completion.ids) for one in first
    )
