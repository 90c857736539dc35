"""Real skills, built from data that packages of the registry carry: no model hub, no copies of the data here."""

from __future__ import annotations

from collections.abc import Callable

from selftaught.data.skills import medical, science, tools
from selftaught.data.skills.built import BuiltSkill
from selftaught.errors import ConfigError

BUILDERS: dict[str, Callable[[], BuiltSkill]] = {
    "tools": tools.build,
    "medical": medical.build,
    "science": science.build,
}
SKILLS = tuple(BUILDERS)

__all__ = ["SKILLS", "BuiltSkill", "build_skill"]


def build_skill(name: str) -> BuiltSkill:
    """Builds one skill; its packages are downloaded first where the cache does not hold them.

    Args:
        name: one of `SKILLS`.

    Returns:
        Its rows and its card, the same ones on every machine.

    Raises:
        ConfigError: there is no such skill.
        DataError: a package cannot be downloaded, or is not the one expected.
    """
    if name not in BUILDERS:
        raise ConfigError(f"unknown skill {name!r}; use one of {', '.join(SKILLS)}")
    return BUILDERS[name]()
