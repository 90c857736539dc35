"""recipes/cluster and the images: loaded, dry-run, and run against stand-ins of what starts them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from launching import launch

from selftaught.config_files import load_config, tomllib

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "recipes" / "cluster"
RECIPES = sorted(ROOT.glob("recipes/**/*.toml"))
FAKE = """#!/usr/bin/env python3
import json, os, sys
if os.path.basename(sys.argv[0]) == "scontrol":
    print("alpha\\nbeta")
elif os.path.basename(sys.argv[0]) == "srun":
    os.execvp(sys.argv[1], sys.argv[1:])
else:
    print(json.dumps(sys.argv[1:]))
"""


@pytest.fixture
def started(tmp_path: Path) -> Any:
    """Runs a script beside stand-ins for torchrun and Slurm; returns torchrun's words."""
    stands = tmp_path / "stands"
    stands.mkdir()
    for name in ("torchrun", "srun", "scontrol"):
        (stands / name).write_text(FAKE)
        (stands / name).chmod(0o755)

    def start(script: str, *words: object, **variables: str) -> list[str]:
        environment = {**os.environ, "PATH": f"{stands}:{os.environ['PATH']}", **variables}
        command = ["bash", str(CLUSTER / script), *map(str, words)]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
        return list(json.loads(done.stdout))

    return start


def torchrun_options(words: list[str]) -> Any:
    """As torchrun itself reads them: it takes no option that it does not know."""
    from torch.distributed.run import get_args_parser

    options = get_args_parser().parse_args(words)
    assert (options.module, options.training_script) == (True, "selftaught")
    return options


def assert_dry_runs(words: list[str], recipe: Path, model: Path, data: Path, tmp_path: Path) -> None:
    """The command of a recipe, with a tiny model in place of the large one."""
    for option, value in (("--recipe", recipe), ("-m", model), ("--out", tmp_path / "run")):
        words[words.index(option) + 1] = str(value)
    words[1] = str(data)
    (outcome,) = (process.wait() for process in launch(1, *words, "--dry-run", "--json"))
    assert outcome.code == 0, outcome.err
    found = outcome.json
    config = load_config(recipe)
    assert (found["batch_size"], found["taught"]) == (min(config.batch_size, 4), 4)
    assert found["config"]["parallel"] == config.parallel and found["model"]["trained"] > 0
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "data.jsonl"
    path.write_text("".join(json.dumps({"question": f"Where is {n}?", "answer": f"In {n}."}) + "\n" for n in range(4)))
    return path


def test_there_are_recipes() -> None:
    assert {path.name for path in RECIPES} >= {"7b-full.toml", "14b-lora.toml", "32b-full.toml"}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads_and_dry_runs(recipe: Path, sharp_model: Path, data: Path, tmp_path: Path) -> None:
    words = ["learn", "data", "-m", "model", "--recipe", "recipe", "--out", "out", "--resume"]
    assert_dry_runs(words, recipe, sharp_model, data, tmp_path)


def test_one_node(started: Any) -> None:
    options = torchrun_options(started("node.sh", "data.jsonl", "/shared/run", "-s", "seed=3"))
    assert (options.standalone, options.nproc_per_node, options.max_restarts) == (True, "8", 3)
    words = options.training_script_args
    assert words[:4] == ["learn", "data.jsonl", "-m", "Qwen/Qwen2.5-7B-Instruct"]
    assert words[4:] == [
        *("--recipe", str(CLUSTER / "7b-full.toml"), "--out", "/shared/run", "--resume", "-s", "seed=3")
    ]
    with pytest.raises(subprocess.CalledProcessError) as missing:
        started("node.sh", "data.jsonl")
    assert "which folder?" in missing.value.stderr


def test_slurm(started: Any) -> None:
    variables = {"SLURM_JOB_NODELIST": "alpha,beta", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "41"}
    submitted = {"SLURM_SUBMIT_DIR": str(ROOT), "GPUS": "4"}
    options = torchrun_options(started("slurm.sh", "data.jsonl", "/shared/run", **variables, **submitted))
    assert (options.nnodes, options.nproc_per_node, options.rdzv_id) == ("2", "4", "41")
    assert (options.rdzv_backend, options.rdzv_endpoint) == ("c10d", "alpha:29500")
    words = options.training_script_args
    assert words[words.index("--recipe") + 1] == str(CLUSTER / "32b-full.toml") and "--resume" in words


def test_slurms_own_lines_ask_for_one_torchrun_a_node() -> None:
    lines = re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", (CLUSTER / "slurm.sh").read_text(), re.MULTILINE)
    asked = dict(lines)
    assert (asked["nodes"], asked["ntasks-per-node"], asked["gpus-per-node"]) == ("8", "1", "8") and "requeue" in asked


def test_kubernetes() -> None:
    """A Job whose pods find the first by the Service's name, and call torchrun as it takes it."""
    service, job = yaml.safe_load_all((CLUSTER / "kubernetes.yaml").read_text())
    assert (service["kind"], service["apiVersion"], job["kind"], job["apiVersion"]) == (
        "Service",
        "v1",
        "Job",
        "batch/v1",
    )
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert service["spec"]["selector"].items() <= job["spec"]["template"]["metadata"]["labels"].items()
    assert (service["spec"]["clusterIP"], pod["subdomain"]) == ("None", service["metadata"]["name"])
    assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"]
    options = torchrun_options(container["args"])
    assert (options.nnodes, int(options.nproc_per_node)) == (
        str(spec["completions"]),
        container["resources"]["limits"]["nvidia.com/gpu"],
    )
    host, _, port = options.rdzv_endpoint.partition(":")
    assert host == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert int(port) == service["spec"]["ports"][0]["port"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    recipe = next(word for word in options.training_script_args if word.startswith("--recipe="))
    assert (CLUSTER / Path(recipe.partition("=")[2]).name).is_file() and "/opt/selftaught/recipes/cluster/" in recipe


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cuda"])
def test_an_image_is_made_of_what_is_there(name: str) -> None:
    lines = (ROOT / name).read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied) == let_in and all((ROOT / path).exists() for path in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["readme"] in copied and set(project["license-files"]) <= set(copied)
    (extras,) = (match[1] for line in lines if (match := re.search(r"-c constraints\.txt '\.\[(\w+)\]'", line)))
    assert extras in project["optional-dependencies"]
    pins = dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert all(pins[package] == version for package, version in re.findall(r"\b(torch)==([\d.]+)", "\n".join(lines)))
