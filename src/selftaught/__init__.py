"""selftaught: teach a language model skill after skill by self-distillation.

    import selftaught
    report = selftaught.learn("facts.jsonl", model="smollm2-135m", out="runs/facts")
    print(selftaught.ask("runs/facts", "What is the refund window?"))

Importing it is instant: torch is loaded by the functions that need it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from selftaught._version import __version__
from selftaught.errors import ArtifactError, ConfigError, DataError, ModelError, SelftaughtError, TrainingError
from selftaught.types import Example, Message, Scorer

if TYPE_CHECKING:
    from selftaught.api import ask, check, evaluate
    from selftaught.config import LearnConfig
    from selftaught.config_files import load_config
    from selftaught.continual import learn
    from selftaught.continual.ablate import ablate
    from selftaught.continual.compare import compare
    from selftaught.continual.lesson import teach
    from selftaught.continual.registry import add_skill
    from selftaught.continual.sequential import sequential
    from selftaught.continual.workspace import Workspace
    from selftaught.data import load_examples
    from selftaught.main_job import quickstart

_LAZY = {
    "LearnConfig": "selftaught.config",
    "Workspace": "selftaught.continual.workspace",
    "ablate": "selftaught.continual.ablate",
    "add_skill": "selftaught.continual.registry",
    "ask": "selftaught.api",
    "compare": "selftaught.continual.compare",
    "check": "selftaught.api",
    "evaluate": "selftaught.api",
    "learn": "selftaught.continual",
    "load_config": "selftaught.config_files",
    "load_examples": "selftaught.data",
    "quickstart": "selftaught.main_job",
    "sequential": "selftaught.continual.sequential",
    "teach": "selftaught.continual.lesson",
}

__all__ = [
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


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'selftaught' has no attribute {name!r}")
