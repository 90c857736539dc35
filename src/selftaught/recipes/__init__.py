"""Recipes that come with the package.

Those in a folder here ("paper/science") are each one configuration, and go by their name wherever a recipe's file is
asked for. Those beside this file hold a table for each method of one command.
"""

from __future__ import annotations

from pathlib import Path

from selftaught.errors import ConfigError

FOLDER = Path(__file__).parent


def packaged_recipes() -> dict[str, Path]:
    """The recipes that go by a name, such as "paper/science", and their files."""
    return {f"{path.parent.name}/{path.stem}": path for path in sorted(FOLDER.glob("*/*.toml"))}


def recipe_file(recipe: Path) -> Path:
    """A recipe's file: the one of that path or, where there is none, the packaged recipe of that name.

    Raises:
        ConfigError: there is neither.
    """
    if recipe.exists():
        return recipe
    packaged = packaged_recipes()
    if recipe.as_posix() not in packaged:
        raise ConfigError(f"{recipe}: no such file, nor a recipe that comes with selftaught: {', '.join(packaged)}")
    return packaged[recipe.as_posix()]
