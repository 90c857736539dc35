"""`selftaught.toml`: what a workspace is made for, and how its gate decides."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from selftaught.config import Config, LearnConfig
from selftaught.config_files import first_problem, merged, parse_config, parse_override, read_toml
from selftaught.errors import ConfigError

CONFIG_FILE = "selftaught.toml"


class GateConfig(Config):
    """How the gate decides; docs/gate.md explains it."""

    tolerance: float = Field(
        0.03, ge=0, lt=1, description="Largest drop of an earlier skill or a probe family, as a fraction."
    )
    tolerances: dict[str, Annotated[float, Field(ge=0, lt=1)]] = Field(
        {}, description="Another one for single skills or families, by name: `translation = 0.05`."
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Of the gate's decisions.")
    probes: Literal["bank", "standard", "none"] = Field(
        "bank",
        description="Which probes are asked: the bank is large enough to decide, the standard ones are quick and "
        "usually leave it inconclusive.",
    )
    on_inconclusive: Literal["hold", "promote", "reject"] = Field(
        "hold",
        description="What becomes of a version of which the gate cannot say; a held one can be promoted by name.",
    )

    def tolerance_of(self, name: str) -> float:
        """The largest drop of a skill or family that is let pass."""
        return self.tolerances.get(name, self.tolerance)


class InteractionsConfig(Config):
    """What is kept of the model's use, and what is learned from it; docs/use.md explains it."""

    redact: tuple[str, ...] = Field(
        (),
        description='Taken out of every text before it is stored: "email", "phone", "package.module:function" (yours).',
    )
    approve: Literal["auto", "by_hand"] = Field(
        "auto",
        description="auto = all feedback that nobody rejected is learned from; by_hand = only approved feedback.",
    )
    least_rows: int = Field(8, ge=2, description="Rows that a lesson from use needs; with fewer, feedback waits.")
    key_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Largest share of a lesson that one key's feedback makes, where several gave some; least_rows of "
        "each are always let through.",
    )


class WorkspaceConfig(Config):
    """What the workspace is made for, how it teaches, and how its gate decides."""

    model: str = Field(description="The base: an embedded name, a model's directory, or a hub id.")
    gate: GateConfig = Field(GateConfig(), description="How the gate decides.")
    interactions: InteractionsConfig = Field(InteractionsConfig(), description="What is kept of use, and learned.")
    learn: dict[str, Any] = Field({}, description="How every lesson is taught: the fields of a recipe.")

    def learn_config(self, recipe: Mapping[str, Any], overrides: Sequence[str]) -> LearnConfig:
        """The configuration of a lesson: the class defaults, this file's [learn], a recipe, overrides.

        Raises:
            ConfigError: naming the first problem.
        """
        tree = merged(self.learn, recipe)
        for override in overrides:
            tree = merged(tree, parse_override(override))
        return parse_config(tree, "configuration")


def read_workspace_config(path: Path) -> WorkspaceConfig:
    """Reads and checks a workspace's file.

    Raises:
        ConfigError: it cannot be read, a key is unknown, or a value is out of bounds.
    """
    try:
        config = WorkspaceConfig.model_validate(read_toml(path))
    except ValidationError as error:
        raise ConfigError(f"{path}: {first_problem(error, WorkspaceConfig)}") from error
    try:
        config.learn_config({}, ())
    except ConfigError as error:
        raise ConfigError(f"{path}: [learn] {str(error).partition(': ')[2]}") from error
    return config


def new_workspace_config(model: str) -> str:
    """The text of a new workspace's file."""
    return f"""# A selftaught workspace: one model that learns skill after skill. Settings: docs/configuration.md
model = {json.dumps(model, ensure_ascii=False)}

[gate]
tolerance = 0.03             # largest drop of an earlier skill or a probe family: 3 points
on_inconclusive = "hold"     # or "promote", "reject"
# probes = "standard"        # 560 items, quick, seldom decide; left out, the bank's 11,500, some minutes a lesson
# [gate.tolerances]
# translation = 0.05

[learn]                      # how every lesson is taught; what is not named is the vetted default
# epochs = 4
"""
