"""A workspace through the command line: lessons that are promoted, rejected and held, and all that can be done then.

The tiny model learns to answer every question with one word, which is all that it can learn in seconds: "Yes" is
promoted; "No", after it, wrecks it and is rejected; and a step too small to change anything is held.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command import ENVIRONMENT, QUICK, Outcome, run

LESSON = [*QUICK, "--method", "sft"]
HARD = [*LESSON, "-s", "learning_rate=1e-2", "-s", "steps=40", "-s", "batch_size=6"]
SOFT = [*LESSON, "-s", "learning_rate=1e-9", "-s", "steps=1"]


class Taught:
    """A workspace in which three lessons were had, and how each ended."""

    def __init__(self, root: Path, outcomes: dict[str, Outcome]) -> None:
        self.root = root
        self.outcomes = outcomes

    def run(self, *words: object, **options: Any) -> Outcome:
        return run(*words, "-w", self.root, **options)


def data(path: Path, word: str) -> Path:
    rows: list[dict[str, Any]] = [{"question": f"{word} {n}?", "answer": word, "answers": [word]} for n in range(6)]
    rows += [{"question": f"And {word} {n}?", "answers": [word], "split": "test"} for n in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def original(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Taught:
    root = tmp_path_factory.mktemp("original") / "work"
    outcomes = {"init": run("init", root, "-m", tiny_model)}
    path = root / "selftaught.toml"
    text = path.read_text(encoding="utf-8").replace("[gate]\n", '[gate]\nprobes = "none"\n')
    path.write_text(text, encoding="utf-8")
    for word in ("Yes", "No"):
        file = data(root / f"{word}.jsonl", word)
        outcomes[f"add {word}"] = run("skills", "add", word, file, "--no-measure", "-w", root)
    outcomes["held"] = run("learn", "Yes", *SOFT, "-w", root)
    outcomes["promoted"] = run("learn", "Yes", *HARD, "--json", "-w", root)
    outcomes["rejected"] = run("learn", "No", *HARD, "-w", root)
    return Taught(root, outcomes)


@pytest.fixture
def taught(original: Taught, tmp_path: Path) -> Taught:
    """A copy, for what changes it."""
    return Taught(Path(shutil.copytree(original.root, tmp_path / "work")), original.outcomes)


def test_lessons_end_with_codes_for_scripts(original: Taught) -> None:
    codes = {name: outcome.code for name, outcome in original.outcomes.items()}
    words = {name: outcome.err for name, outcome in original.outcomes.items() if outcome.code not in (0, 3, 4)}
    assert codes == {"init": 0, "add Yes": 0, "add No": 0, "held": 4, "promoted": 0, "rejected": 3}, words
    promoted = original.outcomes["promoted"].json
    assert (promoted["version"]["number"], promoted["status"], promoted["head"]) == (2, "promoted", "v2")
    (check,) = promoted["verdict"]["checks"]
    assert (check["name"], check["outcome"], check["total"]) == ("Yes", "improved", 20)
    rejected = " ".join(original.outcomes["rejected"].out.split())
    assert "HEAD stays v2. What flipped: selftaught diff v2 v3." in rejected
    assert "Next: selftaught skills add" in original.outcomes["init"].out


def test_what_is_shown(original: Taught) -> None:
    found = original.run("log", "--json").json
    assert (found["head"], found["skills"]) == ("v2", ["Yes", "No"])
    assert [row["status"] for row in found["versions"]] == ["rejected", "promoted", "inconclusive", "base"]
    assert found["versions"][1]["accuracy"]["Yes"] > 0.9
    assert found["versions"][0]["accuracy"]["Yes"] < 0.1
    table = original.run("log").out
    assert "v2 ← HEAD" in table

    one = original.run("show", "--json").json
    assert (one["version"], one["is_head"], one["lineage"]) == ("v2", True, ["v2", "v0"])
    assert one["config"]["learning_rate"] == 1e-2
    assert "improved" in str(one["verdict"]["checks"])
    assert "v2" in original.run("show", "v2").out

    difference = original.run("diff", "v2", "v3", "--json").json
    yes = next(suite for suite in difference["suites"] if suite["suite"] == "Yes")
    assert yes["lost"] >= 18
    assert yes["flips"][0]["before"].startswith("Yes")
    assert "lost" in original.run("diff", "v2", "v3").out

    skills = original.run("skills", "list", "--json").json
    assert [skill["name"] for skill in skills] == ["Yes", "No"]
    assert original.run("skills", "show", "Yes", "--json").json["card"]["counts"] == {
        "train": {"direct": 6},
        "test": {"direct": 20},
    }
    assert original.run("fsck").out.startswith("sound: 4 versions")


def test_from_inside_a_folder_of_the_workspace(original: Taught) -> None:
    inside = original.root / "deep"
    inside.mkdir(exist_ok=True)
    assert run("log", "--json", "-w", inside).json["head"] == "v2"


def test_promoted_by_name_and_rolled_back_and_swept(taught: Taught) -> None:
    line = taught.run("promote", "v3", "--override", "No", "--reason", "because").error_line
    assert "v3: did not pass Yes (regressed); name each that you excuse with --override" in line
    assert taught.run("promote", "v3", "--override", "Yes", "--reason", "No is all I want").code == 0
    assert taught.run("log", "--json").json["head"] == "v3"

    outcome = taught.run("rollback", "v2", "--reason", "I was wrong")
    assert outcome.out == "HEAD is v2 again; v3 is rolled back.\n"
    events = taught.run("show", "v3", "--json").json["events"]
    assert [event["kind"] for event in events] == ["rejected", "promoted", "rolled back"]
    assert events[-1]["reason"] == "I was wrong"

    would = taught.run("gc", "--dry-run").out
    assert would.startswith("would remove the weights of v1, v3; ")
    assert taught.run("gc").out == would.replace("would remove", "removed")
    assert taught.run("gc").out == "removed the weights of no version; 0 MiB\n"
    assert taught.run("fsck").out.startswith("sound: 4 versions")
    assert taught.run("diff", "v1", "v3").code == 0, "answers are kept"
    assert "its weights were removed by selftaught gc" in taught.run("export", "v3", taught.root / "v3").error_line


def test_an_export_loads_without_us(original: Taught, tmp_path: Path) -> None:
    """And answers as the version did."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert original.run("export", "HEAD", tmp_path / "out").code == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    prompt = [{"role": "user", "content": "And Yes 3?"}]
    text = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        answer = tokenizer.decode(model.generate(ids, max_new_tokens=3, do_sample=False)[0, ids.shape[1] :])
    assert answer.startswith("Yes")
    assert run("ask", tmp_path / "out", "And Yes 3?", "--max-new-tokens", 3).out.startswith("Yes")
    assert "is there already" in original.run("export", "HEAD", tmp_path / "out").error_line


def test_an_exported_adapter_loads_with_peft(taught: Taught, tmp_path: Path) -> None:
    """On its parent; together they are the version's own weights."""
    import torch
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM

    words = ["-s", "weights.kind=lora", "-s", "weights.rank=4"]
    assert taught.run("learn", "No", *HARD, *words).code in (0, 3, 4)
    for out, more in (("whole", []), ("adapter", ["--adapter"])):
        assert taught.run("export", "v4", tmp_path / out, *more).code == 0
    config = (tmp_path / "adapter" / "adapter_config.json").read_text(encoding="utf-8")
    adapted = (
        AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter", dtype=torch.float32)
        .merge_and_unload()
        .state_dict()
    )
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "whole").state_dict()
    before = AutoModelForCausalLM.from_pretrained(json.loads(config)["base_model_name_or_path"]).state_dict()
    assert adapted.keys() == whole.keys() == before.keys()
    for name, weight in whole.items():
        torch.testing.assert_close(adapted[name].float(), weight.float(), rtol=2**-7, atol=1e-3)
    moved = [name for name, weight in whole.items() if not torch.equal(weight.float(), before[name].float())]
    assert moved
    assert all("proj" in name for name in moved)
    line = taught.run("export", "v2", tmp_path / "none", "--adapter").error_line
    assert "v2: was taught with full weights; export it without --adapter" in line


def test_a_skill_is_measured_when_it_is_added(taught: Taught, tmp_path: Path) -> None:
    """The base does not know the answer, and does not see it either: nothing to learn for it, and that is said."""
    assert taught.run("skills", "add", "Maybe", data(tmp_path / "maybe.jsonl", "Maybe"), "--measure").code == 0
    measured = taught.run("skills", "show", "Maybe", "--json").json["card"]["measured"]
    assert (measured["version"], measured["rows"], measured["without"]) == ("v2", 6, 0.0)
    assert list((taught.root / ".selftaught" / "runs").iterdir()) == []


BAD: dict[str, tuple[list[object], str]] = {
    "a version that is none": (["show", "v9"], "v9: no such version; selftaught log lists them"),
    "a number that is none": (["show", "9" * 40], "no such version"),
    "to itself": (["rollback", "v2"], "v2: is HEAD already; it can go to v0"),
    "to a stranger": (["rollback", "v1"], "v1: HEAD (v2) does not descend from it; it can go to v0"),
    "a skill that is none": (["learn", "Perhaps"], "Perhaps: no such skill here (registered: Yes, No)"),
    "a skill shown that is none": (["skills", "show", "Perhaps"], "Perhaps: no such skill here"),
    "a name that is taken": (["skills", "add", "Yes", "@"], "Yes: a skill of this name is registered"),
    "a name that is none": (["skills", "add", "a/b", "@"], "name a skill by letters"),
    "a probe's name": (["skills", "add", "facts", "@"], "not as a probe family"),
    "data that is none": (["skills", "add", "More", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
    "no data": (["skills", "add", "More"], "More: give its data"),
    "a lesson on a model": (
        ["learn", "Yes", "-m", "smollm2-135m"],
        "--model: a lesson teaches HEAD (v2); leave it out",
    ),
    "a lesson on data": (["learn", "@"], "register it first: selftaught skills add NAME"),
    "an override without a reason": (["learn", "Yes", "--override", "No"], "give a --reason too"),
    "a reason for nothing": (["promote", "v1", "--reason", "because"], "name what it excuses with --override"),
    "an override of nothing": (
        ["learn", "Yes", "--override", "Perhaps", "--reason", "because"],
        "--override: Perhaps is no skill or probe family; known are Yes, No",
    ),
    "a promotion over no check": (
        ["promote", "v3", "--override", "Yes", "--override", "Perhaps", "--reason", "x"],
        "--override: Perhaps was no check of v3; its checks were ",
    ),
    "the base": (["promote", "v0", "--override", "Yes", "--reason", "x"], "v0: is the base, so there is nothing"),
    "a lesson with a folder": (["learn", "Yes", "--out", "there"], "--out: a lesson keeps its versions"),
    "a lesson to go on with": (["learn", "Yes", "--resume"], "an interrupted lesson goes on by itself"),
    "two methods": (["learn", "Yes", "--method", "sft", "-s", "method=sdft"], "--method: is set by -s too"),
    "a method that teaches nothing": (["learn", "Yes", "--method", "oracle"], "oracle retrieval teaches nothing"),
    "a setting that is none": (["learn", "Yes", "-s", "learning_rat=1"], "unknown key 'learning_rat'"),
    "a recipe that is none": (["learn", "Yes", "-r", "nowhere.toml"], "nowhere.toml: no such file"),
    "promoted already": (
        ["promote", "v2", "--override", "Yes", "--reason", "x"],
        "v2: is promoted, so there is nothing",
    ),
    "overtaken": (
        ["promote", "v1", "--override", "Yes", "--reason", "x"],
        "HEAD is v2 now, and this was taught from v0",
    ),
    "an adapter of none": (["export", "v2", "/nowhere/at/all", "--adapter"], "was taught with full weights"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_words_are_told_in_one_line_and_change_nothing(case: str, original: Taught) -> None:
    words, expected = BAD[case]
    before = original.run("log", "--json").json
    filled = [original.root / "Yes.jsonl" if word == "@" else word for word in words]
    assert expected in original.run(*filled).error_line
    assert original.run("log", "--json").json == before


SETTINGS = {
    "not TOML": ("model = ", "not a readable TOML file"),
    "no model": ("[gate]\n", "model: Field required"),
    "an unknown key": ('model = "m"\n[gate]\ntoleranz = 1\n', "unknown key 'gate.toleranz'"),
    "out of bounds": ('model = "m"\n[gate]\ntolerance = 3\n', "gate.tolerance: Input should be less than 1"),
    "a tolerance out of bounds": ('model = "m"\n[gate.tolerances]\nYes = 3\n', "gate.tolerances.Yes"),
    "an unknown setting": ('model = "m"\n[learn]\nepoch = 1\n', "[learn] unknown key 'epoch'"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_bad_settings_are_told_in_one_line(case: str, taught: Taught) -> None:
    text, expected = SETTINGS[case]
    (taught.root / "selftaught.toml").write_text(text, encoding="utf-8")
    line = taught.run("log").error_line
    assert "selftaught.toml: " in line
    assert expected in line


def test_no_workspace(tiny_model: Path, tmp_path: Path) -> None:
    for words in (["log"], ["show"], ["gc"], ["fsck"], ["skills", "list"], ["rollback", "v0"], ["learn", "Yes"]):
        assert "make one with selftaught init" in run(*words, "-w", tmp_path).error_line
    assert run("init", tmp_path, "-m", tiny_model).code == 0
    assert (
        "is a workspace already; selftaught log shows what it holds"
        in run("init", tmp_path, "-m", tiny_model).error_line
    )
    assert "lies in the workspace" in run("init", tmp_path / "inner", "-m", tiny_model).error_line
    beside = tmp_path / ".." / f"{tmp_path.name}-beside"
    assert run("init", beside, "-m", tiny_model).code == 0, "it is not inside, whatever is written before the dots"
    assert "make one with selftaught init" in run("log", "-w", tmp_path / ".." / "nowhere").error_line


def test_a_model_that_is_none(tmp_path: Path) -> None:
    assert "no such model directory" in run("init", tmp_path / "new", "-m", "./nowhere").error_line
    assert not (tmp_path / "new").exists()


def test_a_model_of_another_name(tiny_model: Path, tmp_path: Path) -> None:
    assert run("init", tmp_path, "-m", tiny_model).code == 0
    path = tmp_path / "selftaught.toml"
    path.write_text(path.read_text(encoding="utf-8").replace(str(tiny_model), "/nope"), encoding="utf-8")
    assert (
        f"names the model /nope, but the workspace was made with {tiny_model}" in run("log", "-w", tmp_path).error_line
    )


def test_versions_are_models_by_their_names(original: Taught) -> None:
    inside, outside = partial(os.chdir, original.root), partial(os.chdir, original.root.parent)
    asked = {name: run("ask", name, "Yes 1?", before=inside).out.strip() for name in ("HEAD", "v3")}
    assert asked["HEAD"].startswith("Yes") and asked["v3"].startswith("No")
    path = original.root / "Yes.jsonl"
    found = run("evaluate", "HEAD", path, "--json", before=inside).json
    assert found["accuracy"]["direct"]["value"] == 1.0
    assert found["results"][0]["question"] == "Yes 0?" and found["results"][0]["expected"] == "Yes"
    assert "v9: no such version" in run("ask", "v9", "Yes?", before=inside).error_line
    assert "not in a workspace" in run("ask", "HEAD", "Yes?", before=outside).error_line


can_mount = (
    sys.platform == "linux"
    and subprocess.run(["sh", "-c", "unshare --mount true"], capture_output=True, check=False).returncode == 0
)


@pytest.mark.skipif(not can_mount, reason="needs the right to mount a folder for reading")
def test_on_a_disk_mounted_for_reading(taught: Taught, tmp_path: Path) -> None:
    """A real one, which holds even root off: all can be read, and what writes says in one line that it cannot."""
    python = f"{sys.executable} -m selftaught"
    script = f"""set -u
        mount --bind work work && mount -o remount,ro,bind work && cd work || exit 9
        for words in 'log' 'show v2' 'diff v2 v3' 'fsck' 'skills list' 'export HEAD ../out'
        do {python} $words > ../out.txt 2>&1 || {{ echo "$words:"; cat ../out.txt; }}
        done
        for words in 'rollback v0' 'gc' 'skills add More Yes.jsonl' 'learn No'
        do {python} $words > /dev/null; echo $?
        done"""
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, **ENVIRONMENT},
    )
    assert done.stdout == "2\n2\n2\n2\n", done.stdout + done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 4
    assert all("cannot be written (Read-only file system)" in line for line in lines)
    assert (tmp_path / "out" / "model.safetensors").is_file()
