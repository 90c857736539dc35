"""Whatever is wrong is said in one line that begins with "selftaught: ", with exit code 2 and no traceback."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command import QUICK, python_m, run
from safetensors.torch import load_file, save_file

GOOD = {"question": "Where is Ola?", "answer": "In Lima."}
LEARN = [*QUICK, "-s", "steps=2", "--json"]


def jsonl(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


DATA = {
    "empty": (b"", "the file is empty"),
    "blank": (b"\n\n", "holds no rows"),
    "columns": (jsonl({"frage": "Wo?", "antwort": "Da."}), "line 1"),
    "broken": (jsonl(GOOD) + b'{"question": "Who?", "answer\n', "line 2: not valid JSON"),
    "unanswered": (jsonl(GOOD, {"question": "Who?"}), "line 2"),
    "duplicate": (jsonl(GOOD, {"question": "Who?", "answer": "I."}, GOOD), "line 3: has the same prompt"),
    "latin1": (b'{"question": "Wo?", "answer": "K\xf6ln."}\n', "line 1: not UTF-8 at byte offset"),
    "several": (jsonl({"question": "Who?"}, {"question": "Why?"}), "(and 1 more row with problems)"),
}


@pytest.mark.parametrize("name", DATA)
def test_data(name: str, tiny_model: Path, tmp_path: Path) -> None:
    content, words = DATA[name]
    path = tmp_path / f"{name}.jsonl"
    path.write_bytes(content)
    line = run("learn", path, "-m", tiny_model, "--out", tmp_path / "run", *LEARN).error_line
    assert words in line
    assert str(path) in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["learn", "check", "evaluate"])
def test_missing_data(command: str, tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "nowhere.jsonl"
    words = [command, tiny_model, path] if command == "evaluate" else [command, path, "-m", tiny_model]
    assert f"{path}: no such file" in run(*words).error_line


def test_no_demonstration_to_learn_from(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "test-only.jsonl"
    path.write_bytes(jsonl({**GOOD, "split": "test"}))
    assert "nothing to teach" in run("learn", path, "-m", tiny_model, "--out", tmp_path / "run", *LEARN).error_line


# ------------------------------------------------------------------------------------------- models


def copy_of(model: Path, folder: Path) -> Path:
    shutil.copytree(model, folder)
    return folder


def without_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    path = folder / "tokenizer_config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values.pop("chat_template", None)
    path.write_text(json.dumps(values), encoding="utf-8")


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{", encoding="utf-8")


MODELS = {
    without_template: "no chat template",
    only_pickle: "pickle files can run code",
    no_config: "has no config.json",
    cut_weights: "not a model that can be read",
    broken_config: "",
}


@pytest.mark.parametrize("spoil", MODELS, ids=lambda spoil: spoil.__name__)
def test_model(spoil, tiny_model: Path, facts_file: Path, tmp_path: Path) -> None:
    model = copy_of(tiny_model, tmp_path / "model")
    spoil(model)
    line = run("learn", facts_file, "-m", model, "--out", tmp_path / "run", *LEARN).error_line
    assert MODELS[spoil] in line
    assert str(model) in line
    # what is then mended may go into the same folder
    assert run("learn", facts_file, "-m", tiny_model, "--out", tmp_path / "run", *LEARN).code == 0


@pytest.mark.parametrize("name", ["/nowhere/model", "./nowhere", "gpt-5"])
def test_missing_model(name: str) -> None:
    assert f"{name}: no such model directory" in run("ask", name, "Who are you?").error_line


def test_hub_model_without_a_network() -> None:
    assert (
        "nobody/nothing: there is no such directory, and it cannot be fetched from the hub either"
        in run("ask", "nobody/nothing", "Who?").error_line
    )


def test_damaged_taught_model(tiny_model: Path, facts_file: Path, tmp_path: Path) -> None:
    assert run("learn", facts_file, "-m", tiny_model, "--out", tmp_path / "run", *LEARN).code == 0
    path = tmp_path / "run" / "model" / "model.safetensors"
    flip_a_byte(path)
    assert "model.safetensors is damaged" in run("ask", tmp_path / "run", "Who?").error_line


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


# -------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-s", "learning_rat=1e-4"], "unknown key 'learning_rat'"),
        (["-s", "teacher.rate=0.1"], "teacher"),
        (["-s", "learning_rate"], "write it as name=value"),
        (["-s", "learning_rate=-1"], "learning_rate: "),
        (["-s", "learning_rate=fast"], "learning_rate: "),
        (["-s", "batch_size=0"], "batch_size: "),
        (["-s", "prompts.skill=Hello"], "{question}"),
        (["-s", "weights.kind=lora", "-s", 'weights.targets=["nowhere"]'], "weights.targets: "),
        (["--method", "dpo"], "method: "),
        (["-r", "nowhere.toml"], "nowhere.toml: no such file"),
        (["-s", "rollout.sampler=torch"], "unknown key 'rollout.sampler'"),
        (["-s", "rollout.prefix_tokens=0"], "rollout.prefix_tokens: "),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else "",
)
def test_options(words: list[str], expected: str, tiny_model: Path, facts_file: Path, tmp_path: Path) -> None:
    data = facts_file
    if "prompts.skill=Hello" in words:
        data = tmp_path / "skill.jsonl"
        data.write_bytes(jsonl(GOOD))
    line = run("learn", data, "-m", tiny_model, "--out", tmp_path / "run", *LEARN, *words).error_line
    assert expected in line


@pytest.mark.parametrize(
    ("recipe", "expected"), [("epochs = ", "not a readable TOML file"), ("epoch = 3", "unknown key 'epoch'")]
)
def test_recipe(recipe: str, expected: str, tiny_model: Path, facts_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(recipe, encoding="utf-8")
    line = run("check", facts_file, "-m", tiny_model, "-r", path).error_line
    assert expected in line
    assert str(path) in line


def test_quickstart_options(tiny_model: Path, tmp_path: Path) -> None:
    words = ["-m", tiny_model, "--out", tmp_path / "run"]
    assert "learning_rat" in run("quickstart", *words, "-s", "sdft.learning_rat=1").error_line
    assert "unknown method 'learning_rate'" in run("quickstart", *words, "-s", "learning_rate=1").error_line
    assert "unknown method 'sdtf'" in run("quickstart", *words, "-s", "sdtf.epochs=1").error_line
    assert "no such model" in run("quickstart", "-m", "./nowhere", "--out", tmp_path / "run", "--json").error_line


@pytest.mark.parametrize("question", ["", "  \n"])
def test_empty_question(question: str, tiny_model: Path) -> None:
    assert run("ask", tiny_model, question).error_line == "selftaught: the question is empty"


def test_too_long_question(tiny_model: Path) -> None:
    assert "tokens and the model takes 2048" in run("ask", tiny_model, "why " * 1000).error_line


def test_too_long_teacher_prompt_names_the_row(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_bytes(jsonl(GOOD, {"id": "novel", "question": "Who?", "answer": "Me.", "context": "word " * 1000}))
    for command in (["check"], ["learn", "--out", tmp_path / "run", "--json"]):
        line = run(*command, path, "-m", tiny_model).error_line
        assert "row 'novel': its teacher prompt has" in line


# -------------------------------------------------------------------------------------------- while it runs


def test_out_folder_that_cannot_be_used(tiny_model: Path, facts_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for out in (tmp_path / "file", tmp_path / "file" / "run", facts_file.parent):
        line = run("learn", facts_file, "-m", tiny_model, "--out", out, *LEARN).error_line
        assert str(out) in line


@pytest.mark.parametrize("method", ["sdft", "sft"])
def test_loss_that_is_not_finite(method: str, tiny_model: Path, facts_file: Path, tmp_path: Path) -> None:
    words = ["-m", tiny_model, "--out", tmp_path / "run", *LEARN, "--method", method, "-s", "learning_rate=1e30"]
    line = run("learn", facts_file, *words, "-s", "steps=6", "-s", "dtype=float32").error_line
    assert "is not finite; lower learning_rate" in line


def test_two_processes_say_it_once(tiny_model: Path, facts_file: Path, tmp_path: Path) -> None:
    words = ["learn", facts_file, "--out", tmp_path / "run", *LEARN, "--processes", "2", "-s", "learning_rate=1e30"]
    broken = copy_of(tiny_model, tmp_path / "model")
    cut_weights(broken)
    assert "not a model that can be read" in run(*words, "-m", broken).error_line
    line = run(*words, "-m", tiny_model, "-s", "steps=6", "-s", "dtype=float32").error_line
    assert "is not finite; lower learning_rate" in line


def test_model_with_nan_weights(tiny_model: Path, facts_file: Path, tmp_path: Path) -> None:
    model = copy_of(tiny_model, tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"].fill_(float("nan"))
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    line = run("learn", facts_file, "-m", model, "--out", tmp_path / "run", *LEARN).error_line
    assert "its logits are not finite" in line


@pytest.mark.parametrize("max_file_bytes", [4_000, 60_000, 200_000])
def test_full_disk(max_file_bytes: int, tiny_model: Path, facts_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["learn", facts_file, "-m", tiny_model, "--out", out, *LEARN]
    line = run(*words, max_file_bytes=max_file_bytes).error_line
    assert "cannot be written" in line
    assert "free some space" in line
    assert str(out) in line
    assert not list(tmp_path.rglob("*.tmp")), "something half-written was left"
    assert not (out / "report.json").exists()
    assert run(*words, "--resume").code == 0  # with room again, it goes on


def test_full_disk_while_the_model_is_saved(tiny_model: Path, facts_file: Path, tmp_path: Path) -> None:
    """Only adapters are in the checkpoint, so the tokenizer beside the adapter is the largest file."""
    model = copy_of(tiny_model, tmp_path / "model")
    words = ["learn", facts_file, "-m", model, "--out", tmp_path / "run", *LEARN, "-s", "weights.kind=lora"]
    words += ["-s", "weights.rank=1", "-s", 'weights.targets=["q_proj"]']
    line = run(*words, max_file_bytes=5_500).error_line
    assert f"{tmp_path / 'run' / 'adapter'}: cannot be written" in line
    assert not list(tmp_path.rglob("*.tmp"))
    assert not any((tmp_path / "run" / folder).exists() for folder in ("adapter", "model"))


def test_debug_shows_the_traceback() -> None:
    outcome = run("--debug", "learn", "/nowhere.jsonl")
    assert outcome.code == 1
    assert "Traceback" in outcome.err
    assert "DataError: /nowhere.jsonl: no such file" in outcome.err


def test_the_same_in_a_fresh_interpreter() -> None:
    assert "./nowhere: no such model directory" in python_m("ask", "./nowhere", "Who?").error_line
