"""The configuration: defaults, recipes, overrides, and one readable line for every mistake."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from selftaught.config import LearnConfig
from selftaught.config_files import load_config, merged, parse_config, parse_override
from selftaught.errors import ConfigError


def test_defaults_are_the_empty_recipe(tmp_path: Path) -> None:
    (tmp_path / "empty.toml").write_text("")
    assert load_config() == LearnConfig() == load_config(tmp_path / "empty.toml")
    assert LearnConfig().method == "sdft"
    assert LearnConfig().loss.divergence == "forward_kl"
    assert LearnConfig().teacher.kind == "frozen"


def test_a_configuration_is_frozen_and_goes_round_through_json() -> None:
    config = load_config(overrides=["weights.kind=lora", 'weights.targets=["q_proj"]', "teacher.kind=ema"])
    with pytest.raises(ValidationError):
        config.seed = 3  # type: ignore[misc]
    assert parse_config(json.loads(json.dumps(config.model_dump(mode="json"))), "test") == config


def test_every_field_is_documented() -> None:
    def check(model: Any, path: str) -> None:
        for name, field in model.model_fields.items():
            if name == "kind":
                continue
            assert field.description, f"{path}{name} has no sentence"
            if isinstance(field.default, BaseModel):
                check(type(field.default), f"{path}{name}.")

    check(LearnConfig, "")


def test_later_sources_win(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text('learning_rate = 1e-3\nseed = 4\n[rollout]\ntemperature = 0.5\n[loss]\ndivergence = "jsd"\n')
    base = {"learning_rate": 1e-5, "batch_size": 2, "rollout": {"top_p": 0.9, "temperature": 0.1}}
    config = load_config(recipe, ["seed=9", "rollout.top_p=0.8", "seed=10"], base)
    assert config.batch_size == 2
    assert config.learning_rate == 1e-3
    assert (config.rollout.temperature, config.rollout.top_p) == (0.5, 0.8)
    assert config.loss.divergence == "jsd"
    assert config.seed == 10
    assert base["rollout"] == {"top_p": 0.9, "temperature": 0.1}, "sources are not changed"


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("seed=3", {"seed": 3}),
        ("learning_rate=1e-4", {"learning_rate": 1e-4}),
        ("probes=false", {"probes": False}),
        ("method=sft", {"method": "sft"}),
        ('method="sft"', {"method": "sft"}),
        ("prompts.skill=Say {question} = {demonstration}", {"prompts": {"skill": "Say {question} = {demonstration}"}}),
        ('weights.targets=["q_proj", "v_proj"]', {"weights": {"targets": ["q_proj", "v_proj"]}}),
        ("loss.support.kind=teacher_topk", {"loss": {"support": {"kind": "teacher_topk"}}}),
        ("teacher={kind='ema', rate=0.1}", {"teacher": {"kind": "ema", "rate": 0.1}}),
        (" seed =3", {"seed": 3}),
        ("prompts.skill=a#b{question}", {"prompts": {"skill": "a#b{question}"}}),
    ],
)
def test_overrides_are_toml_values_or_bare_words(text: str, tree: dict[str, Any]) -> None:
    assert parse_override(text) == tree


@pytest.mark.parametrize("text", ["", "seed", "=3", "  =3"])
def test_an_override_without_name_or_value_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="name=value"):
        parse_override(text)


def test_overrides_reach_nested_tables_and_leave_their_neighbours() -> None:
    config = load_config(overrides=["loss.support.kind=teacher_topk", "loss.support.k=7", "loss.clip_nats=2"])
    assert config.loss.support.model_dump() == {"kind": "teacher_topk", "k": 7}
    assert config.loss.clip_nats == 2
    assert config.loss.divergence == "forward_kl"


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (
            "weights.embeddings=false",
            "unknown key 'weights.embeddings' where weights.kind is 'lora'; set weights.kind too",
        ),
        ("teacher.rate=0.1", "unknown key 'teacher.rate' where teacher.kind is 'frozen'; set teacher.kind too"),
        ("weights.rnak=4", "unknown key 'weights.rnak'; did you mean weights.rank"),
        ("weights.rank=0", "weights.rank: Input should be greater than or equal to 1"),
    ],
)
def test_a_setting_of_another_kind(override: str, line: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(line)):
        load_config(overrides=[override])


def test_another_kind_replaces_the_whole_table() -> None:
    base = {"teacher": {"kind": "ema", "rate": 0.5}, "weights": {"kind": "lora", "rank": 4}}
    assert load_config(base=base, overrides=["teacher.kind=frozen"]).teacher.model_dump() == {"kind": "frozen"}
    assert load_config(base=base, overrides=["weights.kind=full"]).weights.kind == "full"
    same = load_config(base=base, overrides=["teacher.kind=ema", "weights.alpha=9"])
    assert same.teacher.model_dump() == {"kind": "ema", "rate": 0.5}
    assert (same.weights.rank, same.weights.alpha) == (4, 9)  # type: ignore[union-attr]
    either = (["weights.embeddings=false", "weights.kind=full"], ["weights.kind=full", "weights.embeddings=false"])
    assert [load_config(overrides=words).weights.embeddings for words in either] == [False, False]  # type: ignore[union-attr]
    assert merged({"a": {"kind": "x", "b": 1}}, {"a": {"kind": "y", "c": 2}}) == {"a": {"kind": "y", "c": 2}}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("learning_rat=1", "unknown key 'learning_rat'"),
        ("rollout.temprature=1", "unknown key 'rollout.temprature'"),
        ("batch_size=0", "batch_size: .*greater than or equal to 1.*got 0"),
        ("batch_size=many", "batch_size: .*got 'many'"),
        ("learning_rate=-1", "learning_rate: .*greater than 0"),
        ("rollout.top_p=1.5", "rollout.top_p: .*less than or equal to 1"),
        ("loss.divergence=l2", "loss.divergence: .*'forward_kl'"),
        ("teacher.kind=wise", "teacher: .*'wise'"),
        ("loss=3", "loss: "),
        ("learning_rate=nan", "learning_rate: "),
        ("learning_rate=inf", "learning_rate: "),
        ("epochs=inf", "epochs: "),
    ],
)
def test_a_mistake_is_one_line_that_names_it(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        load_config(overrides=[override])
    assert "\n" not in str(error.value)


def test_a_mistake_in_a_recipe_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("batch_size = 0\n")
    with pytest.raises(ConfigError, match=r"mine\.toml: batch_size"):
        load_config(path)


@pytest.mark.parametrize("content", [b"seed = ", b"a = 1\na = 2", b"\xff\xfe", None])
def test_an_unreadable_recipe_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"mine\.toml"):
        load_config(path)
    with pytest.raises(ConfigError, match="not a readable TOML file"):
        load_config(tmp_path)  # a folder


# ----------------------------------------------------------------------------------------- resolving


def test_resolving_fills_in_what_depends_on_the_data() -> None:
    config = LearnConfig(epochs=3, batch_size=4)
    resolved = config.resolve(num_rows=10, longest_demonstration=7)
    assert (resolved.total_steps, resolved.completion_limit) == (8, 11)
    assert config.steps is None and config.rollout.max_new_tokens is None, "a new configuration"
    assert resolved.resolve(99, 99) == resolved, "once resolved, it stays"


def test_resolving_leaves_what_is_given() -> None:
    given = load_config(overrides=["steps=5", "rollout.max_new_tokens=3", "epochs=100", "rollout.top_p=0.5"])
    resolved = given.resolve(1000, 1000)
    assert (resolved.total_steps, resolved.completion_limit, resolved.rollout.top_p) == (5, 3, 0.5)


@pytest.mark.parametrize(("epochs", "rows", "size"), [(0.01, 1, 16), (1, 1, 1), (2.5, 7, 3), (20, 24, 16)])
def test_steps_cover_the_epochs_and_no_more(epochs: float, rows: int, size: int) -> None:
    resolved = LearnConfig(epochs=epochs, batch_size=size).resolve(rows, 5)
    steps, size = resolved.total_steps, resolved.batch_size
    assert steps * size >= epochs * rows > (steps - 1) * size or steps == 1
    assert steps == math.ceil(epochs * rows / size)


def test_several_completions_of_a_prompt_are_a_batch_of_fewer_rows() -> None:
    config = load_config(overrides=["rollout.per_prompt=4", "batch_size=8", "epochs=3"])
    resolved = config.resolve(num_rows=6, longest_demonstration=5)
    assert (resolved.batch_size, resolved.rows_a_step, resolved.total_steps) == (8, 2, 9)
    assert resolved.resolve(99, 99) == resolved
    few = config.resolve(num_rows=1, longest_demonstration=5)
    assert (few.batch_size, few.rows_a_step, few.total_steps) == (4, 1, 3)
    sft = load_config(overrides=["rollout.per_prompt=4", "batch_size=6", "method=sft", "epochs=3"]).resolve(6, 5)
    assert (sft.batch_size, sft.rows_a_step, sft.total_steps) == (6, 6, 3), "SFT draws none"
    with pytest.raises(ConfigError, match=r"batch_size: 6 .* rollout\.per_prompt"):
        load_config(overrides=["rollout.per_prompt=4", "batch_size=6"]).resolve(6, 5)


def test_a_rollout_is_no_longer_than_the_first_tokens_that_are_learned() -> None:
    for prefix, limit in ((None, 8), (3, 3), (20, 8)):
        resolved = LearnConfig(rollout={"prefix_tokens": prefix, "max_new_tokens": 8}).resolve(2, 5)  # type: ignore[arg-type]
        assert (resolved.rollout_limit, resolved.completion_limit) == (limit, 8)


def test_few_rows_are_batches_of_their_own_number_and_are_taught_long_enough() -> None:
    resolved = LearnConfig(batch_size=16).resolve(num_rows=2, longest_demonstration=5)
    assert (resolved.batch_size, resolved.total_steps) == (2, 30)
    assert LearnConfig(epochs=3).resolve(2, 5).total_steps == 3, "what is asked for is done"
    assert LearnConfig(steps=7).resolve(2, 5).total_steps == 7


def test_facts_of_documents_are_learned_by_heart_however_many_there_are() -> None:
    steps = [LearnConfig().resolve(480, 5, knowledge).total_steps for knowledge in (True, False)]
    assert steps == [12 * 480 // 16, 4 * 480 // 16]
    assert LearnConfig(epochs=1).resolve(480, 5, True).total_steps == 30, "what is asked for is done"


def test_each_method_and_each_kind_of_weights_has_its_own_learning_rate() -> None:
    def rate(method: str, kind: str) -> float | None:
        return load_config(None, [f"method={method}", f"weights.kind={kind}"]).resolve(2, 5).learning_rate

    assert [rate("sdft", "lora"), rate("sft", "lora"), rate("sdft", "full"), rate("dft", "full")] == [
        *(2.5e-3, 4e-4),
        *(1.2e-4, 5e-5),
    ]
    assert LearnConfig().resolve(2, 5).learning_rate == 2.5e-3, "adapters are the default"
    assert LearnConfig(method="sft", learning_rate=1e-3).resolve(2, 5).peak_learning_rate == 1e-3


def test_an_unresolved_configuration_has_no_steps() -> None:
    with pytest.raises(AssertionError, match="resolve"):
        _ = LearnConfig().total_steps
    with pytest.raises(AssertionError, match="resolve"):
        _ = LearnConfig().completion_limit


@pytest.mark.parametrize(("rows", "passes"), [(40, 12), (80, 6), (180, 4), (1000, 4)])
def test_many_rows_get_fewer_passes_by_default(rows: int, passes: float) -> None:
    resolved = LearnConfig(batch_size=4).resolve(rows, 5)
    assert resolved.total_steps == math.ceil(passes * rows / 4)
