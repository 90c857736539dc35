"""Recipes that come with the package.

Those in a folder here go by their name wherever a recipe's file is asked for: "paper/science" and its neighbours are
each one configuration, "ablate/baselines" and its neighbours each an ablation. Those beside this file hold a table for
each method of one command.
"""

from __future__ import annotations

from pathlib import Path

from selftaught.errors import ConfigError

FOLDER = Path(__file__).parent


def packaged_recipes(kind: str = "*") -> dict[str, Path]:
    """The recipes that go by a name, and their files.

    Args:
        kind: "paper" (configurations), "ablate" (ablations), or "*" for both.
    """
    return {f"{path.parent.name}/{path.stem}": path for path in sorted(FOLDER.glob(f"{kind}/*.toml"))}


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
