"""Configurations as people write them: TOML files over the defaults, single overrides, and what is wrong with them."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from selftaught.config import LearnConfig
from selftaught.errors import ConfigError
from selftaught.recipes import recipe_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["first_problem", "load_config", "merged", "nested", "parse_config", "parse_override", "read_toml", "tomllib"]


def load_config(
    recipe: Path | None = None, overrides: Sequence[str] = (), base: Mapping[str, Any] | None = None
) -> LearnConfig:
    """Builds a configuration from defaults, then `base`, then a recipe's file or packaged name, then "a.b=value"s.

    Raises:
        ConfigError: the recipe cannot be read, a key is unknown, or a value is out of bounds.
    """
    tree: dict[str, Any] = merged({}, base or {})
    where = "configuration"
    if recipe is not None:
        where = str(recipe)
        tree = merged(tree, read_toml(recipe_file(recipe)))
    for override in overrides:
        tree = merged(tree, parse_override(override))
    return parse_config(tree, where)


def parse_config(tree: Mapping[str, Any], where: str) -> LearnConfig:
    """Checks a tree of values.

    Raises:
        ConfigError: naming `where` and the first problem.
    """
    try:
        return LearnConfig.model_validate(merged(LearnConfig().model_dump(), tree))
    except ValidationError as error:
        raise ConfigError(f"{where}: {first_problem(error)}") from error


def merged(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `top` laid over it, table by table.

    A table that names another `kind` than the one beneath replaces it whole.
    """
    result = dict(base)
    for key, value in top.items():
        old = result.get(key)
        if (
            isinstance(value, Mapping)
            and isinstance(old, Mapping)
            and old.get("kind") in (None, value.get("kind", old.get("kind")))
        ):
            result[key] = merged(old, value)
        else:
            result[key] = value
    return result


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file's values.

    Raises:
        ConfigError: it is missing or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: not a readable TOML file ({error})") from error


def parse_override(text: str) -> dict[str, Any]:
    """Reads "a.b=value" as {"a": {"b": value}}; the value is TOML, or else a bare string."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"override {text!r}: write it as name=value, for example learning_rate=1e-4")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value  # a bare word is a string
    return nested(key.strip(), parsed)


def nested(key: str, value: Any) -> dict[str, Any]:
    """{"a.b": 1} as {"a": {"b": 1}}."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def _similar(name: str, model: type[BaseModel]) -> str:
    """The known settings that a mistyped one may stand for."""
    known = list(_names(LearnConfig().model_dump())) if model is LearnConfig else list(model.model_fields)
    near = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {' or '.join(near)}?" if near else f"; known are {', '.join(sorted(model.model_fields))}"


def _names(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        yield prefix + key
        if isinstance(value, Mapping):
            yield from _names(value, f"{prefix}{key}.")


def first_problem(error: ValidationError, model: type[BaseModel] = LearnConfig) -> str:
    """The first thing that is wrong with a `model`, and with which setting."""
    problem = error.errors()[0]
    parts = [str(part) for part in problem["loc"]]
    known = set(_names(LearnConfig().model_dump())) if model is LearnConfig else set()
    place = next((end for end in range(1, len(parts) - 1) if ".".join([*parts[:end], "kind"]) in known), None)
    kind = parts.pop(place) if place is not None else ""  # pydantic puts it between the table and the key
    name = ".".join(parts) or "value"
    if problem["type"] != "extra_forbidden":
        return f"{name}: {problem['msg']} (got {problem['input']!r})"
    if place is not None and not difflib.get_close_matches(name, known, cutoff=0.85):
        switch = ".".join([*parts[:place], "kind"])
        return f"unknown key {name!r} where {switch} is {kind!r}; set {switch} too, to one that has it"
    return f"unknown key {name!r}{_similar(name, model)}"
