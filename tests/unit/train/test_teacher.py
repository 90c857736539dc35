"""What weights a teacher has, while its student moves on."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tiny_run import LORA, Recorder, make_student, refresh, run_step, shake, tiny_config, weights_of

from selftaught.config import EmaTeacher, FrozenTeacher, LiveTeacher, Teacher
from selftaught.models.decoder import KeysValues, NewTokens
from selftaught.models.fast_decoder import FastDecoder
from selftaught.models.load import LanguageModel, load_model
from selftaught.models.teacher import TeacherModel

IDS = torch.tensor([[5, 9, 33, 71, 2, 14]])


def states(teacher: TeacherModel) -> torch.Tensor:
    with torch.no_grad(), teacher.active() as model:
        return model.head(model.hidden_states(IDS).last_hidden_state[0])


def model_states(model: LanguageModel) -> torch.Tensor:
    with torch.no_grad():
        return model.head(model.hidden_states(IDS).last_hidden_state[0])


def make(folder: Path, teacher: Teacher, **values: object) -> tuple[LanguageModel, Recorder, TeacherModel]:
    student, optimizer, _, _ = make_student(folder, tiny_config(**values))
    made = TeacherModel(student, teacher, 1 << 20)
    made.start(student, optimizer.masters)
    return student, optimizer, made


def move(student: LanguageModel, optimizer: Recorder, teacher: TeacherModel, seed: int, scale: float = 0.05) -> None:
    """What a step does to the weights, only larger."""
    shake(optimizer.masters, seed, scale)
    refresh(optimizer)
    teacher.update(student, optimizer.masters)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("weights", [{"kind": "full"}, LORA], ids=lambda w: w["kind"])
def test_frozen_never_moves_while_the_student_trains(sharp_model: Path, weights: object, dtype: str) -> None:
    config = tiny_config(weights=weights, dtype=dtype, learning_rate=0.01)
    student, optimizer, config, rows = make_student(sharp_model, config)
    teacher = TeacherModel(student, FrozenTeacher(), 1 << 20)
    teacher.start(student, optimizer.masters)
    base = load_model(sharp_model, dtype=dtype)
    assert torch.equal(states(teacher), model_states(base))
    for step in range(3):
        run_step(student, teacher, optimizer, rows, config, step)
    assert not torch.allclose(model_states(student), model_states(base), atol=1e-2)
    assert torch.equal(states(teacher), model_states(base))
    assert teacher.state() == {}


def test_frozen_with_adapters_is_the_student_itself_with_them_off(sharp_model: Path) -> None:
    student, optimizer, teacher = make(sharp_model, FrozenTeacher(), weights=LORA)
    assert teacher.model.model is student.model, "no second copy"
    move(student, optimizer, teacher, 1)
    assert torch.equal(states(teacher), model_states(load_model(sharp_model, dtype="float32")))
    on = model_states(student)
    assert not torch.allclose(on, states(teacher), atol=1e-2)
    assert torch.equal(model_states(student), on), "the adapters are on again"
    with pytest.raises(RuntimeError), teacher.active():
        raise RuntimeError
    assert torch.equal(model_states(student), on), "also after an error"


@pytest.mark.parametrize("weights", [{"kind": "full"}, LORA], ids=lambda w: w["kind"])
def test_live_is_the_student(sharp_model: Path, weights: object) -> None:
    student, optimizer, teacher = make(sharp_model, LiveTeacher(), weights=weights)
    assert teacher.model.model is student.model
    before = states(teacher)
    move(student, optimizer, teacher, 1)
    assert torch.equal(states(teacher), model_states(student))
    assert not torch.allclose(states(teacher), before, atol=1e-2)


@pytest.mark.parametrize(("rate", "dtype"), [(0.001, "bfloat16"), (0.3, "float32"), (1.0, "float32")])
def test_ema_equals_a_float64_average(sharp_model: Path, rate: float, dtype: str) -> None:
    student, optimizer, teacher = make(sharp_model, EmaTeacher(rate=rate), dtype=dtype)
    expected = {name: master.detach().double() for name, master in optimizer.masters.items()}
    for seed in range(5):
        move(student, optimizer, teacher, seed)
        for name, master in optimizer.masters.items():
            expected[name] = (1 - rate) * expected[name] + rate * master.detach().double()
    computing = dict(teacher.model.model.named_parameters())
    assert teacher.state().keys() == {f"ema.{name}" for name in expected}
    for name, value in expected.items():
        average = teacher.state()[f"ema.{name}"]
        assert average.dtype == torch.float32
        torch.testing.assert_close(average.double(), value, rtol=1e-6, atol=1e-6)
        assert computing[name].dtype == student.dtype
        assert torch.equal(computing[name], average.to(student.dtype))


def test_ema_starts_as_the_student(sharp_model: Path) -> None:
    student, _, teacher = make(sharp_model, EmaTeacher())
    assert torch.equal(states(teacher), model_states(student))
    assert teacher.model.model is not student.model
    assert not any(p.requires_grad for p in teacher.model.model.parameters())


def test_ema_with_adapters_averages_the_merged_weights(sharp_model: Path) -> None:
    """An average of products BA, not the product of averages, which is another matrix."""
    rate = 0.3
    student, optimizer, teacher = make(sharp_model, EmaTeacher(rate=rate), weights=LORA)

    def merged() -> dict[str, torch.Tensor]:
        plain = copy.deepcopy(student.model).merge_and_unload()  # type: ignore[operator]
        return {name: p.detach().double() for name, p in plain.named_parameters()}

    expected = merged()
    for seed in range(5):
        move(student, optimizer, teacher, seed, scale=0.3)
        expected = {name: (1 - rate) * expected[name] + rate * value for name, value in merged().items()}
    found = dict(teacher.model.model.named_parameters())
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name].detach().double(), value, rtol=1e-5, atol=1e-5)
    moved = max((value - merged()[name]).abs().max().item() for name, value in expected.items())
    assert moved > 0.01, "the average is not just the student"


def last_state(teacher: TeacherModel, prompt: Sequence[int]) -> torch.Tensor:
    with teacher.active():
        prompts = teacher.prompts([prompt])
        return prompts.load(prompts.decoder.new_cache(1, len(prompt)), 0, [0])[0]


KINDS: list[Teacher] = [FrozenTeacher(), EmaTeacher(), LiveTeacher()]


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)
@pytest.mark.parametrize("weights", [{"kind": "full"}, LORA], ids=lambda w: w["kind"])
def test_only_a_frozen_teacher_keeps_its_prompts(
    sharp_model: Path, kind: Teacher, weights: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And whatever the teacher is, its prompts are run with its weights of that moment."""
    student, optimizer, teacher = make(sharp_model, kind, weights=weights)
    prompt = [3, 4, 5, 6]
    runs: list[int] = []
    plain = FastDecoder.extend

    def counted(self: FastDecoder, cache: KeysValues, new: NewTokens, first_row: int = 0) -> torch.Tensor:
        runs.append(len(new.ids))
        return plain(self, cache, new, first_row)

    monkeypatch.setattr(FastDecoder, "extend", counted)
    old = last_state(teacher, prompt)
    move(student, optimizer, teacher, 1, 0.3)
    new = last_state(teacher, prompt)
    assert torch.equal(new, old) == teacher.frozen
    assert runs == ([4] if teacher.frozen else [4, 4])
    for state in (new, last_state(teacher, prompt)):
        with torch.no_grad(), teacher.active() as model:
            expected = model.hidden_states(torch.tensor([prompt])).last_hidden_state[0, -1]
        torch.testing.assert_close(state, expected, rtol=1e-4, atol=1e-4)


def test_a_frozen_teacher_keeps_no_more_than_it_may(sharp_model: Path) -> None:
    student, optimizer, _, _ = make_student(sharp_model, tiny_config())
    small, large = (TeacherModel(student, FrozenTeacher(), size) for size in (3000, 1 << 20))
    for length in (70, 5, 30, 70):
        prompt = [(7 * token) % 250 for token in range(length)]
        assert torch.equal(last_state(small, prompt), last_state(large, prompt))
        for teacher in (small, large):
            assert teacher._store is not None
            assert teacher._store.used_bytes <= teacher._store.max_bytes
    assert optimizer.gradients == []


@pytest.mark.parametrize("weights", [{"kind": "full"}, LORA], ids=lambda w: w["kind"])
def test_an_average_goes_round_bit_for_bit(sharp_model: Path, weights: object) -> None:
    student, optimizer, teacher = make(sharp_model, EmaTeacher(rate=0.1), weights=weights, dtype="bfloat16")
    move(student, optimizer, teacher, 1)
    saved = {name: value.clone() for name, value in teacher.state().items()}
    _, _, other = make(sharp_model, EmaTeacher(rate=0.1), weights=weights, dtype="bfloat16")
    last_state(other, [3, 4])
    other.load_state(saved)
    assert torch.equal(last_state(other, [3, 4]), last_state(teacher, [3, 4]))
    assert all(torch.equal(saved[name], value) for name, value in other.state().items())
    assert torch.equal(states(other), states(teacher))
    assert other.state().keys() == saved.keys() and saved


def test_the_teacher_leaves_the_student_untouched(sharp_model: Path) -> None:
    for weights in ({"kind": "full"}, LORA):
        student, optimizer, _, _ = make_student(sharp_model, tiny_config(weights=weights))
        before = weights_of(student)
        teacher = TeacherModel(student, EmaTeacher(rate=0.5), 0)
        teacher.start(student, optimizer.masters)
        teacher.update(student, optimizer.masters)
        after = weights_of(student)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert any(p.requires_grad for p in student.model.parameters())
