"""The documentation that is made from the code is up to date, and what it names exists."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from selftaught import docs
from selftaught.config import LearnConfig

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"\[`(?P<name>\w+(?:\.\w+)?)`\]\((?P<path>[^)]+)\)")


@pytest.mark.parametrize("name", ["cli.md", "configuration.md"])
def test_generated_files_are_up_to_date(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["docs", str(tmp_path)])
    docs.main()
    made = (tmp_path / name).read_text(encoding="utf-8")
    assert made == (ROOT / "docs" / name).read_text(encoding="utf-8"), "run `make docs`"


def test_every_setting_is_in_the_configuration() -> None:
    text = docs.configuration()
    for name, value in settings(LearnConfig().model_dump()):
        assert f"`{name}`" in text, name
        assert value is not None or name


def settings(tree: dict[str, object], prefix: str = "") -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for name, value in tree.items():
        found += settings(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
    return found


def names_in(path: Path) -> set[str]:
    """Functions, classes and methods that a file defines: `name`, and `Class.name`."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return found


def test_every_function_and_test_named_in_the_algorithm_exists() -> None:
    text = (ROOT / "docs" / "algorithm.md").read_text(encoding="utf-8")
    links = list(NAMED.finditer(text))
    assert len(links) > 40
    for link in links:
        path = (ROOT / "docs" / link["path"]).resolve()
        assert path.is_file(), link[0]
        assert link["name"] in names_in(path), link[0]


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_links_lead_to_files(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), target
