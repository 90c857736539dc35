"""The command line's surface: instant help, the version, and the public names."""

from __future__ import annotations

import resource
import subprocess
import sys
from types import FunctionType, ModuleType

import pytest

import selftaught
from selftaught import errors
from selftaught.cli import main
from selftaught.config import LearnConfig

COMMANDS = (
    *(
        "quickstart",
        "learn",
        "check",
        "evaluate",
        "ask",
        "init",
        "log",
        "show",
        "diff",
        "rollback",
        "promote",
        "export",
    ),
    *("gc", "fsck", "serve", "dashboard", "compare", "ablate", "harness"),
)
HEAVY = ("torch", "transformers", "peft", "datasets", "numpy", "matplotlib", "huggingface_hub", "selftaught.config")
PRINTS_HELP = "import typer, rich.console, rich.table, rich.markdown, typer.rich_utils"


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def cpu_seconds(*words: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_importing_is_light() -> None:
    loaded = python("import sys, selftaught; print(*sys.modules)").split()
    assert not set(HEAVY) & set(loaded)


@pytest.mark.parametrize("words", [["--help"], ["learn", "--help"], ["--version"]], ids=" ".join)
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys\n"
        "from selftaught.cli import main\n"
        f"sys.argv = ['selftaught', *{words!r}]\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "print('MODULES', *sys.modules)"
    )
    loaded = python(code).rpartition("MODULES")[2].split()
    assert "typer" in loaded
    assert not set(HEAVY) & set(loaded)


def test_help_takes_little_more_than_the_parts_that_print_it() -> None:
    """Seconds differ from machine to machine; Typer and Rich alone take half of what help takes."""
    pairs = [(cpu_seconds("-m", "selftaught", "--help"), cpu_seconds("-c", PRINTS_HELP)) for _ in range(3)]
    ours, parts = (min(times) for times in zip(*pairs, strict=True))
    assert ours < 3 * parts


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["selftaught", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    assert isinstance(stop.value.code, int)
    return stop.value.code


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"{selftaught.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, command, "--help") == 0
    assert command in capsys.readouterr().out


def test_help_names_every_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from selftaught.cli.app import app

    assert run(monkeypatch, "--help") == 0
    text = capsys.readouterr().out
    names = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    assert tuple(names) == COMMANDS
    assert all(name in text for name in names)


def test_an_unknown_option_is_said_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "learn", "facts.jsonl", "--lerning-rate", "1") == 2
    assert "--lerning-rate" in capsys.readouterr().err


# ------------------------------------------------------------------------------------- public names


def test_public_names_are_locked() -> None:
    assert selftaught.__all__ == [
        "ArtifactError",
        "ConfigError",
        "DataError",
        "Example",
        "LearnConfig",
        "Message",
        "ModelError",
        "Scorer",
        "SelftaughtError",
        "TrainingError",
        "Workspace",
        "__version__",
        "ablate",
        "add_skill",
        "ask",
        "check",
        "compare",
        "evaluate",
        "learn",
        "load_config",
        "load_examples",
        "quickstart",
        "sequential",
        "teach",
    ]
    assert selftaught.__all__ == sorted(selftaught.__all__)


@pytest.mark.parametrize("name", selftaught.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    value = getattr(selftaught, name)
    assert not isinstance(value, ModuleType)
    assert name == "__version__" or value.__doc__
    assert python(f"from selftaught import {name}") == "" if name in ("learn", "evaluate") else True


def test_a_name_stays_a_function_when_a_module_of_that_name_is_imported() -> None:
    import selftaught.main_job
    import selftaught.statistics

    assert isinstance(selftaught.evaluate, FunctionType)
    assert isinstance(selftaught.quickstart, FunctionType)
    assert selftaught.LearnConfig is LearnConfig
    with pytest.raises(AttributeError, match="no attribute 'lern'"):
        _ = selftaught.lern


def test_every_error_has_one_root_and_a_standard_type() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert len(kinds) == 6
    for kind in kinds:
        assert issubclass(kind, errors.SelftaughtError)
        assert kind is errors.SelftaughtError or issubclass(kind, (ValueError, RuntimeError, OSError))
