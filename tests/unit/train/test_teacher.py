"""What weights a teacher has, while its student moves on."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from tiny_run import LORA, Recorder, make_student, run_step, shake, tiny_config, weights_of

from selftaught.config import EmaTeacher, FrozenTeacher, LiveTeacher, Teacher
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
    optimizer._refresh()
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


def test_only_a_moving_teacher_forgets_its_prefills(sharp_model: Path) -> None:
    kinds: list[tuple[Teacher, bool]] = [(FrozenTeacher(), True), (EmaTeacher(), False), (LiveTeacher(), False)]
    for kind, kept in kinds:
        student, optimizer, teacher = make(sharp_model, kind)
        prompt = [3, 4, 5]
        with teacher.active():
            old = teacher.prefills.get([prompt]).last_hidden
        move(student, optimizer, teacher, 1)
        assert (teacher.prefills.used_bytes > 0) == kept
        with teacher.active():
            assert torch.equal(teacher.prefills.get([prompt]).last_hidden, old) == kept


@pytest.mark.parametrize("weights", [{"kind": "full"}, LORA], ids=lambda w: w["kind"])
def test_an_average_goes_round_bit_for_bit(sharp_model: Path, weights: object) -> None:
    student, optimizer, teacher = make(sharp_model, EmaTeacher(rate=0.1), weights=weights, dtype="bfloat16")
    move(student, optimizer, teacher, 1)
    saved = {name: value.clone() for name, value in teacher.state().items()}
    _, _, other = make(sharp_model, EmaTeacher(rate=0.1), weights=weights, dtype="bfloat16")
    other.prefills.get([[3, 4]])
    other.load_state(saved)
    assert other.prefills.used_bytes == 0
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
