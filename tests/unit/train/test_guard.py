"""A run that goes wrong ends itself and keeps its last checkpoint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_run import EXAMPLES, tiny_config, weights_of

from selftaught.config import GuardConfig
from selftaught.config_files import load_config
from selftaught.errors import TrainingError
from selftaught.train import loop
from selftaught.train.guard import SIGNS, repetition, trouble
from selftaught.train.loop import train

GUARD = GuardConfig(window=2)


def steps(sign: str, values: Sequence[float | None]) -> list[dict[str, Any]]:
    return [{"step": number, sign: value} for number, value in enumerate(values, 1)]


@pytest.mark.parametrize(
    ("ids", "share"),
    [([], 0.0), ([1, 2, 3], 0.0), ([1, 2, 3, 4], 0.0), ([1] * 5, 0.5), ([1] * 13, 0.9), ([1, 2, 3, 4, 5] * 2, 2 / 7)],
)
def test_repetition_is_the_share_of_runs_that_were_there_before(ids: list[int], share: float) -> None:
    assert repetition(ids) == pytest.approx(share)


@given(st.lists(st.integers(0, 3), max_size=40))
def test_repetition_equals_a_count(ids: list[int]) -> None:
    runs = [tuple(ids[start : start + 4]) for start in range(max(0, len(ids) - 3))]
    before = sum(run in runs[:place] for place, run in enumerate(runs))
    assert repetition(ids) == pytest.approx(before / len(runs) if runs else 0.0)


@pytest.mark.parametrize("sign", sorted(SIGNS))
def test_a_sign_is_held_to_its_own_best(sign: str) -> None:
    bound = getattr(GUARD, sign)
    assert trouble(steps(sign, [5.0, 5.0, 5.0, 5.0]), GUARD) is None, "high from the start is no change"
    assert trouble(steps(sign, [5.0, 0.0, 0.0, bound, bound]), GUARD) is None, "at the bound"
    assert trouble(steps(sign, [5.0, 0.0, 0.0, bound, bound + 0.2]), GUARD) is not None
    assert trouble(steps(sign, [0.0, 0.0, 0.0, 1.9 * bound]), GUARD) is None, "a single step is not a trend"
    assert trouble(steps(sign, [0.0, 9.0]), GUARD) is None, "there is no window yet to compare with"
    off = GUARD.model_copy(update={sign: None})
    assert trouble(steps(sign, [0.0, 0.0, 9.0, 9.0]), off) is None
    words = trouble(steps(sign, [0.0, 0.0, None, 9.0, 9.0]), GUARD)
    assert words is not None and SIGNS[sign] in words and "from 0.00 to 9.00" in words


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(1, 5))
def test_trouble_equals_plain_means(values: list[float], window: int) -> None:
    config = GuardConfig(window=window, repetition=0.25)
    means = [math.fsum(values[end - window : end]) / window for end in range(window, len(values) + 1)]
    rise = means[-1] - min(means) if len(values) > window else 0.0
    if abs(rise - 0.25) > 1e-9:
        assert (trouble(steps("repetition", values), config) is not None) == (rise > 0.25)


@pytest.mark.parametrize("sign", ["repetition", "unended", "gap_nats", "anchor_nats"])
def test_a_bound_that_is_off_watches_nothing(sign: str) -> None:
    values = [0.0] * 30 + [9.0] * 30
    assert trouble(steps(sign, values), load_config().guard) is not None
    assert trouble(steps(sign, values), load_config(overrides=[f"guard.{sign}=off"]).guard) is None


@pytest.fixture
def wrong_from_step_five(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the fifth step on, the record says that answers repeat themselves."""
    plain = loop._signs

    def signs(output: Any, step: int) -> dict[str, Any]:
        return {**plain(output, step), "repetition": 0.0 if step < 5 else 0.9}

    monkeypatch.setattr(loop, "_signs", signs)


def test_a_run_that_goes_wrong_keeps_its_last_checkpoint(
    sharp_model: Path, tmp_path: Path, wrong_from_step_five: None
) -> None:
    config = tiny_config(steps=12, checkpoint_every=2, guard={"window": 2})
    model, record = train(sharp_model, EXAMPLES, config, tmp_path)
    assert record.stopped == {
        "at": 5,
        "kept": 4,
        "why": "its answers repeat themselves (repetition rose from 0.00 to 0.45)",
    }
    assert [step["step"] for step in record.steps] == [1, 2, 3, 4]
    whole, _ = train(sharp_model, EXAMPLES, config.model_copy(update={"steps": 4}))
    assert all(torch.equal(weight, weights_of(whole)[name]) for name, weight in weights_of(model).items())


def test_there_is_something_to_keep_from_when_the_guard_begins_to_look(
    sharp_model: Path, tmp_path: Path, wrong_from_step_five: None
) -> None:
    config = tiny_config(steps=12, checkpoint_every=20, guard={"window": 2})
    _, record = train(sharp_model, EXAMPLES, config, tmp_path)
    assert record.stopped is not None and record.stopped["kept"] == 2


@pytest.mark.parametrize(("bound", "saved"), [("off", [4]), (0.3, [2, 4])])
def test_a_checkpoint_for_the_guard_is_written_only_if_it_looks(
    sharp_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: float | str, saved: list[int]
) -> None:
    done: list[int] = []
    save = loop.save_checkpoint

    def noted(folder: Path, step: int, *rest: Any) -> None:
        done.append(step)
        save(folder, step, *rest)

    monkeypatch.setattr(loop, "save_checkpoint", noted)
    guard = {"window": 2, **dict.fromkeys(SIGNS, "off"), "repetition": bound}
    train(sharp_model, EXAMPLES, tiny_config(steps=4, checkpoint_every=20, guard=guard), tmp_path)
    assert done == saved


def test_with_nothing_to_keep_it_is_an_error(sharp_model: Path, wrong_from_step_five: None) -> None:
    config = tiny_config(steps=12, guard={"window": 2})
    with pytest.raises(TrainingError, match=r"step 5: its answers repeat themselves .* no checkpoint"):
        train(sharp_model, EXAMPLES, config)


def test_a_healthy_run_is_left_alone_and_its_signs_are_recorded(sharp_model: Path) -> None:
    _, record = train(sharp_model, EXAMPLES, tiny_config(anchor={"rows": 2, "pool": 2, "max_new_tokens": 4}))
    assert record.stopped is None and len(record.steps) == 4
    assert all(0 <= step["repetition"] <= 1 and 0 <= step["unended"] <= 1 for step in record.steps)
    assert all(step["anchor_nats"] is not None for step in record.steps)
