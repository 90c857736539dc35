"""Every recipe that comes with the package, by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from selftaught.config import LearnConfig
from selftaught.config_files import load_config
from selftaught.errors import ConfigError
from selftaught.main_job import quickstart_configs
from selftaught.recipes import FOLDER, packaged_recipes

NAMES = sorted(packaged_recipes("paper"))


def test_all_that_the_paper_ran_are_there() -> None:
    skills = ("science", "tools", "medical", "sequential")
    assert {f"paper/{skill}{method}" for skill in skills for method in ("", "-sft")} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_packaged_recipe_loads_by_its_name_and_by_its_path(name: str) -> None:
    config = load_config(Path(name))
    assert config == load_config(FOLDER / f"{name}.toml")
    assert config != LearnConfig()
    assert load_config(Path(name), ["seed=7"]).seed == 7


def test_the_papers_settings_for_knowledge() -> None:
    config, skills = load_config(Path("paper/knowledge")), load_config(Path("paper/science"))
    assert (config.epochs, config.rollout.max_new_tokens) == (4, 1024)
    rollout = config.rollout.model_copy(update={"max_new_tokens": 2048})
    prompts = config.prompts.model_copy(update={"skill": skills.prompts.skill, "knowledge": skills.prompts.knowledge})
    assert config.model_copy(update={"epochs": 2, "rollout": rollout, "prompts": prompts}) == skills
    assert all(part in config.prompts.knowledge for part in ("{context}", "{question}", "{demonstration}"))


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("paper/") and "knowledge" not in name])
def test_the_papers_settings(name: str) -> None:
    config = load_config(Path(name)).resolve(num_rows=4046, longest_demonstration=100)
    assert config.method == ("sft" if name.endswith("-sft") else "sdft")
    assert config.weights.kind == "full"
    assert (config.learning_rate, config.batch_size, config.total_steps) == (1e-5, 32, 253)
    assert (config.schedule, config.warmup_steps, config.weight_decay, config.max_grad_norm) == ("cosine", 10, 0, 1)
    assert (config.dtype, config.completion_limit) == ("bfloat16", 2048)
    if config.method == "sdft":
        rollout = config.rollout
        assert (rollout.temperature, rollout.top_p, rollout.per_prompt, rollout.teacher_share) == (1, 1, 1, 0)
        assert (config.teacher.kind, config.loss.divergence, config.loss.skip_tokens) == ("ema", "forward_kl", 3)
        assert (config.loss.teacher_temperature, config.anchor.rows) == (1, 0)
        assert "including the thinking process" in config.prompts.skill


def test_the_quickstarts_recipe_loads() -> None:
    assert {"sdft", "sft"} <= set(quickstart_configs())


def test_a_file_comes_before_a_packaged_recipe_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config(Path("paper/science")).batch_size == 32
    Path("paper").mkdir()
    Path("paper/science").write_text("batch_size = 3\n")
    assert load_config(Path("paper/science")).batch_size == 3


@pytest.mark.parametrize("name", ["paper/maths", "paper/science.toml", "../recipes/paper/science", "quickstart"])
def test_a_recipe_that_is_not_there(name: str) -> None:
    with pytest.raises(ConfigError, match=r"no such file, nor a recipe that comes with selftaught: .*paper/science"):
        load_config(Path(name))
