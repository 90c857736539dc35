"""`learn --dry-run`: what it says is what the run then does, and it leaves nothing behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from selftaught.config_files import parse_config
from selftaught.continual.dry_run import dry_run
from selftaught.errors import ArtifactError, ConfigError, DataError, ModelError
from selftaught.models.load import load_model
from selftaught.train.loop import train
from selftaught.types import Example, Message

EXAMPLES = [
    *(
        Example(f"row-{n}", (Message("user", "Where is Ola?" + " Say." * n),), "In Lima.", context="Ola is in Lima.")
        for n in range(3)
    ),
    Example("asked", (Message("user", "And Ola?"),), answers=("Lima",), split="test"),
]
SETTINGS: dict[str, Any] = {
    "batch_size": 2,
    "steps": 2,
    "dtype": "float32",
    "anchor": {"rows": 0},
    "rollout": {"max_new_tokens": 4},
}
LORA = {"kind": "lora", "rank": 2}


@pytest.mark.parametrize("weights", [{"kind": "full"}, {"kind": "full", "embeddings": False}, LORA], ids=str)
def test_it_says_what_the_run_does(weights: dict[str, Any], sharp_model: Path) -> None:
    config = parse_config({**SETTINGS, "weights": weights}, "test")
    found = dry_run(EXAMPLES, str(sharp_model), "nowhere", config, processes=1)
    model, record = train(sharp_model, EXAMPLES, config)
    numbers = {name: weight.numel() for name, weight in model.model.named_parameters()}
    adapters = sum(number for name, number in numbers.items() if ".lora_" in name)
    embeddings = sum(number for name, number in numbers.items() if "embed_tokens" in name or "lm_head" in name)
    every = sum(numbers.values()) - adapters
    expected = adapters or every - (0 if weights.get("embeddings", True) else embeddings)
    assert (found["model"]["parameters"], found["model"]["trained"]) == (every, expected)
    assert found["steps"] == len(record.steps) == 2
    assert (found["taught"], found["asked"], found["batch_size"], found["processes"]) == (3, 1, 2, 1)
    assert found["config"] == json.loads(json.dumps(found["config"])) and found["config"]["steps"] == 2
    assert found["longest"]["completion"] == 4
    assert not Path("nowhere").exists()


def test_lengths_are_those_of_the_tokenizer(sharp_model: Path) -> None:
    found = dry_run(EXAMPLES, str(sharp_model), None, parse_config(SETTINGS, "test"), processes=1)
    tokenizer = load_model(sharp_model).tokenizer
    turns = [{"role": "user", "content": EXAMPLES[2].question}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert found["longest"]["prompt"] == len(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert found["longest"]["demonstration"] == len("In Lima.") + 1  # a token a byte, and the one that ends it
    assert found["longest"]["teacher_prompt"] > found["longest"]["prompt"]
    assert found["writes"] == []


def test_no_weights_are_needed_but_a_local_model_has_to_have_them(sharp_model: Path, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(sharp_model, tmp_path / "bare"))
    (bare / "model.safetensors").write_bytes(b"not weights, and nobody reads them")
    assert dry_run(EXAMPLES, str(bare), None, parse_config(SETTINGS, "test"), processes=1)["taught"] == 3
    (bare / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        dry_run(EXAMPLES, str(bare), None, parse_config(SETTINGS, "test"), processes=1)


def test_of_a_model_on_the_hub_all_but_the_weights_is_fetched(
    sharp_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = Path(shutil.copytree(sharp_model, tmp_path / "bare"))
    (bare / "model.safetensors").unlink()
    wanted: list[list[str]] = []

    def snapshot(name: str, allow_patterns: list[str]) -> str:
        wanted.append(allow_patterns)
        return str(bare)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    found = dry_run(EXAMPLES, "owner/seven-billions", None, parse_config(SETTINGS, "test"), processes=1)
    assert found["model"]["name"] == "owner/seven-billions" and found["model"]["parameters"] > 20_000
    assert "*.safetensors" not in wanted[0] and "*.json" in wanted[0]
    with pytest.raises(ModelError, match="holds no weights"):
        load_model("owner/seven-billions")
    assert "*.safetensors" in wanted[1]


REFUSED: dict[str, tuple[dict[str, Any], type[Exception]]] = {
    "parallel: fsdp2 is for processes that torchrun has started": ({"parallel": "fsdp2"}, ConfigError),
    "row 'row-0': its teacher prompt has": ({"prompts": {"max_teacher_tokens": 16}}, DataError),
    "do not fit 2048": ({"rollout": {"max_new_tokens": 2040}}, DataError),
    "rollout.per_prompt": ({"rollout": {"per_prompt": 3}}, ConfigError),
    "weights.targets": ({"weights": {"kind": "lora", "targets": ["no_such_layer"]}}, ConfigError),
}


@pytest.mark.parametrize("words", REFUSED)
def test_it_refuses_what_the_run_would(words: str, sharp_model: Path, tmp_path: Path) -> None:
    settings, error = REFUSED[words]
    config = parse_config({**SETTINGS, **settings}, "test")
    with pytest.raises(error, match=words):
        dry_run(EXAMPLES, str(sharp_model), tmp_path / "run", config, processes=1)
    with pytest.raises(error, match=words):
        train(sharp_model, EXAMPLES, config)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_a_run_is_told(sharp_model: Path, tmp_path: Path) -> None:
    out, config = tmp_path / "run", parse_config(SETTINGS, "test")
    out.mkdir()
    (out / "request.json").write_text(json.dumps({"model": "another"}), encoding="utf-8")
    (out / "run.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ArtifactError, match="already holds a run; add --resume"):
        dry_run(EXAMPLES, str(sharp_model), out, config)
    with pytest.raises(ConfigError, match=r"holds another run \(different model\)"):
        dry_run(EXAMPLES, str(sharp_model), out, config, resume=True)
    assert sorted(path.name for path in out.iterdir()) == ["request.json", "run.json"]
