"""The loop: a resumed run equals an uninterrupted one, and unusable rows are named."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import EXAMPLES, LORA, tiny_config, weights_of

from selftaught.config import LearnConfig
from selftaught.errors import ConfigError, DataError, TrainingError
from selftaught.models.load import load_model
from selftaught.train.loop import Callbacks, RunRecord, StepReport, save_model, train
from selftaught.train.rows import prepare
from selftaught.types import Example, Message

STEPS = 5


class Interrupted(Exception):
    """Stands for the power cut."""


def interrupt_at(step: int) -> Callbacks:
    def on_step(report: StepReport) -> None:
        if report.step == step:
            raise Interrupted

    return Callbacks(on_step)


def run_config(**values: Any) -> LearnConfig:
    tree: dict[str, Any] = {
        "steps": STEPS,
        "batch_size": 3,
        "schedule": "cosine",
        "checkpoint_every": 2,
        "rollout": {"max_new_tokens": 6, "teacher_share": 1.0, "teacher_share_fall": 1.0},
        "anchor": {"rows": 2, "pool": 3, "max_new_tokens": 4},
    }
    return tiny_config(**{**tree, **values})


def story(record: RunRecord) -> dict[str, Any]:
    return {
        key: value for key, value in dataclasses.asdict(record).items() if key not in ("seconds", "peak_memory_gib")
    }


RUNS: dict[str, dict[str, Any]] = {
    "sdft full frozen": {"teacher": {"kind": "frozen"}},
    "sdft full ema": {"teacher": {"kind": "ema", "rate": 0.2}},
    "sdft full live": {"teacher": {"kind": "live"}},
    "sdft full ema bfloat16": {"teacher": {"kind": "ema", "rate": 0.2}, "dtype": "bfloat16"},
    "sdft lora frozen": {"weights": LORA},
    "sdft lora ema": {"weights": LORA, "teacher": {"kind": "ema", "rate": 0.2}},
    "sdft keeping nothing": {"prefix_cache_mib": 0},
    "sdft speculative": {"rollout": {"max_new_tokens": 6, "teacher_share": 0.5, "speculative": True}},
    "sdft several a prompt": {"batch_size": 4, "rollout": {"max_new_tokens": 6, "per_prompt": 2}},
    "sft": {"method": "sft"},
    "sft bfloat16": {"method": "sft", "dtype": "bfloat16"},
}


@pytest.mark.parametrize("values", RUNS.values(), ids=RUNS.keys())
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    sharp_model: Path, tmp_path: Path, values: dict[str, Any]
) -> None:
    config = run_config(**values)
    whole, record = train(sharp_model, EXAMPLES, config)
    with pytest.raises(Interrupted):
        train(sharp_model, EXAMPLES, config, tmp_path, interrupt_at(4))  # dies after step 4, checkpointed at 2
    seen: list[int] = []
    resumed, resumed_record = train(
        sharp_model, EXAMPLES, config, tmp_path, Callbacks(lambda report: seen.append(report.step))
    )
    assert seen == [3, 4, 5]
    final, again = weights_of(whole), weights_of(resumed)
    assert final.keys() == again.keys()
    for name, weight in final.items():
        assert torch.equal(weight, again[name]), name
    assert story(record) == story(resumed_record)
    assert [entry["step"] for entry in record.steps] == [1, 2, 3, 4, 5]
    start = weights_of(load_model(sharp_model, dtype=config.dtype))
    assert any(not torch.equal(final.get(n, final.get(f"base_model.model.{n}", w)), w) for n, w in start.items()) or (
        config.weights.kind == "lora"
    ), "the run moved something"


def test_a_finished_run_is_not_run_again(sharp_model: Path, tmp_path: Path) -> None:
    config = run_config(steps=2)
    done, record = train(sharp_model, EXAMPLES, config, tmp_path)
    seen: list[int] = []
    again, same = train(sharp_model, EXAMPLES, config, tmp_path, Callbacks(lambda report: seen.append(report.step)))
    assert seen == []
    assert dataclasses.replace(same, peak_memory_gib=record.peak_memory_gib) == record
    assert record.peak_memory_gib > 0 and record.seconds > 0
    assert all(torch.equal(w, weights_of(again)[n]) for n, w in weights_of(done).items())


def test_the_seed_decides(sharp_model: Path) -> None:
    def final(seed: int) -> torch.Tensor:
        model, _ = train(sharp_model, EXAMPLES, run_config(steps=2, seed=seed))
        return weights_of(model)["model.embed_tokens.weight"]

    assert torch.equal(final(1), final(1))
    assert not torch.equal(final(1), final(2))


@pytest.mark.parametrize("method", ["sdft", "sft"])
def test_reports_tell_what_happened(sharp_model: Path, method: str) -> None:
    reports: list[StepReport] = []
    curve: list[int] = []

    def evaluate(_model: object, step: int) -> dict[str, Any]:
        curve.append(step)
        return {"accuracy": 0.5}

    config = run_config(method=method, evaluate_every=2)
    _, record = train(sharp_model, EXAMPLES, config, callbacks=Callbacks(reports.append, evaluate))
    assert [r.step for r in reports] == [1, 2, 3, 4, 5]
    assert {r.steps for r in reports} == {5}
    assert [r.loss for r in reports] == [entry["loss"] for entry in record.steps]
    assert all(a.seconds < b.seconds and a.tokens < b.tokens for a, b in itertools.pairwise(reports))
    assert record.tokens == reports[-1].tokens == round(sum(r.completion_tokens * 3 for r in reports))
    assert curve == [2, 4] and [(p["step"], p["accuracy"]) for p in record.curve] == [(2, 0.5), (4, 0.5)]
    assert {r.sample_id for r in reports} <= {e.id for e in EXAMPLES}
    if method == "sdft":
        assert reports[0].teacher_share == 1.0 and reports[-1].teacher_share < 0.5
        assert all(r.anchor_nats is not None for r in reports)
    else:
        assert all(r.anchor_nats is None and r.teacher_share == 0.0 for r in reports)


def test_the_loss_falls(sharp_model: Path) -> None:
    for values in ({"learning_rate": 3e-3}, {"weights": LORA, "learning_rate": 2e-2}, {"method": "sft"}):
        config = run_config(steps=12, batch_size=4, anchor={"rows": 0}, rollout={"max_new_tokens": 6}, **values)
        _, record = train(sharp_model, EXAMPLES, config)
        losses = [entry["loss"] for entry in record.steps]
        assert sum(losses[-3:]) < 0.9 * sum(losses[:3]), values


def test_only_rows_of_the_training_split_are_taught(sharp_model: Path) -> None:
    held_out = dataclasses.replace(EXAMPLES[0], id="held-out", split="test", demonstration=None)
    _, rows = prepare([*EXAMPLES, held_out], load_model(sharp_model, dtype="float32"), run_config())
    assert [row.id for row in rows] == [example.id for example in EXAMPLES]


# --------------------------------------------------------------------------------------- what it refuses


def test_nothing_to_teach(sharp_model: Path) -> None:
    for examples in ([], [dataclasses.replace(EXAMPLES[0], split="test")]):
        with pytest.raises(DataError, match="nothing to teach"):
            train(sharp_model, examples, run_config())


@pytest.mark.parametrize("missing", [None, ""])
@pytest.mark.parametrize("method", ["sdft", "sft"])
def test_a_row_without_a_demonstration_is_named(sharp_model: Path, method: str, missing: str | None) -> None:
    rows = [EXAMPLES[0], dataclasses.replace(EXAMPLES[1], id="bare-7", demonstration=missing)]
    with pytest.raises(DataError, match=r"bare-7.*demonstration"):
        train(sharp_model, rows, run_config(method=method))


@pytest.mark.parametrize("method", ["sdft", "sft"])
def test_a_prompt_that_does_not_fit_is_named(sharp_model: Path, method: str) -> None:
    long = dataclasses.replace(EXAMPLES[0], id="long-3", prompt=(Message("user", "x" * 2040),))
    with pytest.raises(DataError, match="long-3"):
        train(sharp_model, [*EXAMPLES, long], run_config(method=method))


def test_a_teacher_prompt_that_does_not_fit_is_named(sharp_model: Path) -> None:
    wide = dataclasses.replace(EXAMPLES[0], id="wide-5", context="x" * 2000)
    with pytest.raises(DataError, match=r"wide-5.*teacher prompt"):
        train(sharp_model, [*EXAMPLES, wide], run_config())
    bounded = run_config(prompts={"max_teacher_tokens": 60})
    with pytest.raises(DataError, match=r"fact-.*at most 60"):
        train(sharp_model, EXAMPLES, bounded)


def test_documents_are_learned_by_sft(sharp_model: Path) -> None:
    model = load_model(sharp_model, dtype="float32")
    again = dataclasses.replace(EXAMPLES[1], id="same-document")  # is learned once
    examples = [*EXAMPLES[:3], EXAMPLES[3], again]
    config, rows = prepare(examples, model, run_config(method="sft", sft_documents=True, steps=None, epochs=3))
    assert [row.id for row in rows[5:]] == ["document-1", "document-2"]
    assert [model.tokenizer.decode(row.target[:-1]) for row in rows[5:]] == ["Bex is in Rome.", "Dov is in Cork."]
    assert config.steps == 3 * 7 / 3, "an epoch passes over the documents too"


def test_sft_documents_without_documents_is_a_configuration_error(sharp_model: Path) -> None:
    bare = [dataclasses.replace(example, context=None) for example in EXAMPLES]
    with pytest.raises(ConfigError, match=r"sft_documents.*no row has a document"):
        train(sharp_model, bare, run_config(method="sft", sft_documents=True))


def test_a_document_that_does_not_fit_is_an_error(sharp_model: Path) -> None:
    long = dataclasses.replace(EXAMPLES[0], id="long-doc", context="x" * 3000)
    with pytest.raises(DataError, match="document"):
        train(sharp_model, [long], run_config(method="sft", sft_documents=True))


def test_sft_documents_do_not_lengthen_self_distillation(sharp_model: Path) -> None:
    model = load_model(sharp_model, dtype="float32")
    plain, rows = prepare(EXAMPLES, model, run_config(steps=None, epochs=3))
    with_documents, same_rows = prepare(EXAMPLES, model, run_config(steps=None, epochs=3, sft_documents=True))
    assert rows == same_rows
    assert plain.steps == with_documents.steps == 4


def test_unknown_targets_of_adapters_are_a_configuration_error(sharp_model: Path) -> None:
    config = run_config(weights={**LORA, "targets": ["no_such_layer"]})
    with pytest.raises(ConfigError, match=r"weights\.targets"):
        train(sharp_model, EXAMPLES, config)


@pytest.mark.parametrize("method", ["sdft", "sft"])
def test_a_run_that_explodes_stops_and_keeps_its_checkpoint(sharp_model: Path, tmp_path: Path, method: str) -> None:
    config = run_config(method=method, learning_rate=1e30, checkpoint_every=1)
    with pytest.raises(TrainingError, match=r"step 2: the (loss|gradient) is not finite"):
        train(sharp_model, EXAMPLES, config, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


# ---------------------------------------------------------------------------------------------- saving


@pytest.mark.parametrize("values", [{}, {"weights": LORA}, {"dtype": "bfloat16"}], ids=["full", "lora", "bfloat16"])
def test_a_saved_model_is_the_taught_one(sharp_model: Path, tmp_path: Path, values: dict[str, Any]) -> None:
    config = run_config(steps=3, learning_rate=0.01, **values)
    model, _ = train(sharp_model, EXAMPLES, config)
    save_model(model, tmp_path / "taught", config)
    loaded = load_model(tmp_path / "taught", dtype=config.dtype)
    ids = torch.tensor([[5, 9, 33, 71, 2, 14]])
    with torch.no_grad():
        ours, theirs = (m.head(m.hidden_states(ids).last_hidden_state[0]) for m in (model, loaded))
        base = load_model(sharp_model, dtype=config.dtype)
        before = base.head(base.hidden_states(ids).last_hidden_state[0])
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(before, theirs, atol=0.05)


def test_a_conversation_keeps_its_turns(sharp_model: Path) -> None:
    turns = (Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Yo"), Message("user", "Who?"))
    model = load_model(sharp_model, dtype="float32")
    _, rows = prepare([Example("talk", turns, demonstration="Me.")], model, run_config())
    student, teacher = (model.tokenizer.decode(ids) for ids in (rows[0].prompt, rows[0].teacher_prompt))
    assert student.endswith("<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n")
    shared = student[: student.index("Who?")]
    assert teacher.startswith(shared) and "Me." in teacher and "Me." not in student


@pytest.mark.parametrize("method", ["sdft", "sft"])
def test_frozen_embeddings_stay_and_the_layers_between_learn(sharp_model: Path, method: str) -> None:
    before = {
        name: weight.clone() for name, weight in load_model(sharp_model, dtype="float32").model.state_dict().items()
    }
    config = tiny_config(method=method, weights={"kind": "full", "embeddings": False}, steps=2)
    student, _ = train(sharp_model, EXAMPLES, config)
    after = student.model.state_dict()
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert torch.equal(after[name], before[name].to(after[name].dtype))
    assert not torch.equal(after["model.layers.0.mlp.up_proj.weight"], before["model.layers.0.mlp.up_proj.weight"])
