"""`learn` from end to end on the tiny model: what it writes, what reads it, and what it refuses."""

from __future__ import annotations

import csv
import json
import shutil
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from command import QUICK, QUICK_SETTINGS, Outcome, python_m, run
from safetensors.torch import load_file, save_file

import selftaught
from selftaught.config_files import load_config
from selftaught.models.load import load_model
from selftaught.train.loop import train

LORA = ["weights.kind=lora", "weights.rank=4", "weights.alpha=8"]


@pytest.fixture(scope="module")
def model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with larger weights, so that what is in its prompt changes what it says."""
    folder = tmp_path_factory.mktemp("loud") / "model"
    shutil.copytree(tiny_model, folder)
    path = folder / "model.safetensors"
    weights = {name: w if "norm" in name else 4 * w for name, w in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})
    return folder


def learn(data: Path, model: Path, out: Path, *settings: str, resume: bool = False) -> dict[str, Any]:
    config = load_config(None, [*QUICK_SETTINGS, *settings])
    return selftaught.learn(data, model=str(model), out=out, config=config, resume=resume, processes=1)


def losses(report: dict[str, Any]) -> list[float]:
    return [point["loss"] for point in report["runs"][-1]["loss"]]


def same_but_times(report: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(report)
    report = json.loads(text)
    for name in ("created", "machine"):
        report.pop(name)
    for one in report["runs"]:
        for name in ("seconds", "peak_memory_gib", "model_dir"):
            one.pop(name)
        for point in one["curve"]:
            point.pop("seconds")
    return report


def test_oracle_retrieval_is_a_method_that_teaches_nothing(model: Path, facts_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    report = learn(facts_file, model, out, "method=oracle")
    assert report == json.loads((out / "report.json").read_text(encoding="utf-8"))
    base, oracle = report["runs"]
    assert (oracle["method"], oracle["label"], oracle["steps"], oracle["drift_nats"]) == (
        *("oracle", "oracle retrieval", None),
        base["drift_nats"],
    )
    assert not (out / "model").exists() and (out / "report.html").is_file()
    assert any(answer["answers"]["base"] != answer["answers"]["oracle"] for answer in report["answers"])
    with pytest.raises(selftaught.ConfigError, match="oracle retrieval teaches nothing"):
        train(model, selftaught.load_examples(facts_file), load_config(None, ["method=oracle"]))


@pytest.mark.parametrize("method", ["sdft", "sft"])
def test_api_teaches_and_writes_everything(method: str, model: Path, facts_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    report = learn(facts_file, model, out, f"method={method}", "batch_size=4", "steps=12", "anchor.rows=0")
    assert json.loads((out / "report.json").read_text(encoding="utf-8")) == report
    assert "<html" in (out / "report.html").read_text(encoding="utf-8").lower()
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["method"] == method
    assert [one["name"] for one in report["runs"]] == ["base", method]
    assert [point["step"] for point in report["runs"][1]["loss"]] == list(range(1, 13))
    values = losses(report)
    assert sum(values[-3:]) < 0.7 * sum(values[:3])

    from transformers import AutoModelForCausalLM, AutoTokenizer

    taught = AutoModelForCausalLM.from_pretrained(out / "model")
    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Where is Ola?"}], add_generation_prompt=True, return_tensors="pt"
    )["input_ids"]
    assert torch.isfinite(taught(ids).logits).all()
    before = AutoModelForCausalLM.from_pretrained(model)
    changed = dict(before.named_parameters())
    assert all(not torch.equal(w.float(), changed[name].float()) for name, w in taught.named_parameters())


def test_lora_leaves_a_whole_model_and_its_adapter_and_every_command_takes_both(
    model: Path, facts_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    monkeypatch.chdir(model.parent)  # a relative name must not be needed later
    settings = [
        *LORA,
        "batch_size=4",
        "steps=16",
        "anchor.rows=0",
        "loss.teacher_temperature=1",  # in so few steps, adapters make a student no surer: most would be left over
    ]
    report = learn(facts_file, Path(model.name), out, *settings)
    values = losses(report)
    assert sum(values[-3:]) < 0.7 * sum(values[:3])
    assert not (out / "model" / "adapter_config.json").exists()

    from peft import AutoPeftModelForCausalLM

    assert AutoPeftModelForCausalLM.from_pretrained(out / "adapter").peft_config["default"].r == 4
    second = tmp_path / "second"  # on top of an adapter, another
    learn(facts_file, out / "adapter", second, *settings, "steps=2")
    merged, plain = (dict(load_model(second / name).model.named_parameters()) for name in ("adapter", "model"))
    assert all(torch.equal(weight, plain[name]) for name, weight in merged.items())
    monkeypatch.setattr("selftaught.models.load.share_weights", lambda *_: None)  # as on a GPU
    for weight in load_model(second / "adapter", dtype="bfloat16").model.parameters():
        assert weight.dtype == torch.bfloat16
    for folder in (out, out / "model", out / "adapter"):
        answer = run("ask", folder, "Where is Ola?", "--max-new-tokens", 4, "--json").json
        assert answer["completion"] == selftaught.ask(folder, "Where is Ola?", max_new_tokens=4)
    found = run("evaluate", out, facts_file, "--max-new-tokens", 8, "--json").json
    results = {item["id"]: item["completion"] for item in found["results"]}
    again = selftaught.evaluate(out, facts_file, max_new_tokens=8)
    assert results == {item["id"]: item["completion"] for item in again["results"]}


def test_command_in_a_fresh_interpreter(tiny_model: Path, facts_file: Path, tmp_path: Path) -> None:
    words = ["learn", facts_file, "-m", tiny_model, "--out", tmp_path / "run", *QUICK, "-s", "steps=2"]
    outcome = python_m(*words, "-s", "weights.kind=lora")
    assert outcome.code == 0, outcome.err
    assert "SDFT" in outcome.out
    assert "base: measuring (answers)" in outcome.err
    assert "warn" not in outcome.err.lower(), "only progress belongs there"
    for name in ("model/model.safetensors", "adapter/adapter_config.json", "report.html", "report.json", "run.json"):
        assert (tmp_path / "run" / name).is_file()


def test_json_is_all_of_standard_output(tiny_model: Path, facts_file: Path, tmp_path: Path) -> None:
    words = ["learn", facts_file, "-m", tiny_model, "--out", tmp_path / "run", *QUICK, "-s", "steps=2", "--json"]
    outcome = run(*words)
    assert outcome.json == json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    assert outcome.err == ""
    check = run("check", facts_file, "-m", tiny_model, "--json", "-s", "rollout.max_new_tokens=4").json
    assert (check["rows"], check["train_rows"], check["groups"]) == (5, 4, {"direct": 4, "paraphrase": 1})


@pytest.mark.parametrize("where", ["in a file", "in this process alone"])  # such as in a script that is run
def test_two_processes_teach_and_judge_by_a_scorer_of_ones_own(
    where: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "def short(text, example):\n    return len(text) < 100\n"
    if where == "in a file":
        (tmp_path / "judges.py").write_text(source, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "judges", raising=False)
    else:
        judges = types.ModuleType("judges")
        exec(source, judges.__dict__)
        monkeypatch.setitem(sys.modules, "judges", judges)
    scorer = {"name": "callable", "params": {"path": "judges:short"}}
    rows = [{"question": f"Where is {name}?", "answer": f"In {name}.", "scorer": scorer} for name in ("Rome", "Oslo")]
    data = tmp_path / "facts.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = load_config(None, [*QUICK_SETTINGS, "steps=2"])
    report = selftaught.learn(data, model=str(tiny_model), out=tmp_path / "run", config=config, processes=2)
    assert report["machine"]["processes"] == 2
    assert report["runs"][1]["accuracy"]["direct"]["correct"] == 2
    assert report["runs"][1]["peak_memory_gib"] > 0


# ------------------------------------------------------------------------------------------- formats


def as_csv(rows: list[dict[str, str]], path: Path) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def as_parquet(rows: list[dict[str, str]], path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def test_formats_teach_the_same(tiny_model: Path, facts_file: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in facts_file.read_text(encoding="utf-8").splitlines()]
    names = list(dict.fromkeys(name for row in rows for name in row))
    rows = [{name: row.get(name) for name in names} for row in rows]
    as_csv(rows, tmp_path / "facts.csv")
    as_parquet(rows, tmp_path / "facts.parquet")
    reports = [
        learn(path, tiny_model, tmp_path / path.suffix[1:], "steps=2")
        for path in (facts_file, tmp_path / "facts.csv", tmp_path / "facts.parquet")
    ]
    assert len({report["data"]["hash"] for report in reports}) == 1
    assert losses(reports[0]) == losses(reports[1]) == losses(reports[2])


# -------------------------------------------------------------------------------------------- resume


def test_a_run_is_never_overwritten_and_a_finished_one_is_handed_back(
    tiny_model: Path, facts_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    report = learn(facts_file, tiny_model, out, "steps=2")
    written = {path: path.stat().st_mtime_ns for path in (out / "model").iterdir()}

    def command(*more: str) -> Outcome:
        steps = [] if any("steps" in word for word in more) else ["-s", "steps=2"]
        return run("learn", facts_file, "-m", tiny_model, "--out", out, *QUICK, *steps, *more, "--json")

    assert "already holds a run; add --resume" in command().error_line
    started = time.monotonic()
    again = command("--resume").json
    assert time.monotonic() - started < 5
    assert same_but_times(again) == same_but_times(report)
    assert written == {path: path.stat().st_mtime_ns for path in (out / "model").iterdir()}
    assert "different config" in command("-s", "steps=3", "--resume").error_line
    assert "different config" in command("--method", "sft", "--resume").error_line

    with facts_file.open("a", encoding="utf-8") as file:
        file.write('{"question": "Where is Eve?", "answer": "In Bern."}\n')
    assert "different data" in command("--resume").error_line


def test_one_seed_one_result(tiny_model: Path, facts_file: Path, tmp_path: Path) -> None:
    first, same, other = (
        losses(learn(facts_file, tiny_model, tmp_path / str(number), "steps=3", f"seed={seed}"))
        for number, seed in enumerate([1, 1, 2])
    )
    assert first == same != other
