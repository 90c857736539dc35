"""A workspace: a folder with one model that learns skill after skill, and a ledger that remembers everything.

    selftaught.toml          what it is for, and how its gate decides
    .selftaught/ledger.db    skills, versions, answers, verdicts, events
    .selftaught/artifacts/   weights, rows and answers, named by their hashes
    .selftaught/runs/        lessons under way
    .selftaught/interactions.db   what is kept of its use, if anything

Whoever writes holds the workspace's lock; whoever reads needs none.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selftaught.continual.workspace_config import CONFIG_FILE, new_workspace_config, read_workspace_config
from selftaught.data.rows import from_json_lines
from selftaught.errors import ArtifactError, ConfigError
from selftaught.files import discard, locked, read_json, whole_directory, write_json, write_text
from selftaught.interactions import Interactions
from selftaught.interactions.redaction import redactor
from selftaught.interactions.store import FILE as INTERACTIONS_FILE
from selftaught.ledger.artifacts import Artifacts
from selftaught.ledger.records import Evaluation, Skill, Version
from selftaught.ledger.store import Ledger
from selftaught.types import Example

FOLDER = ".selftaught"
BASE_REASON = "the base, "  # and the model's name, in the first event


class Workspace:
    """An open workspace.

    Args:
        root: its folder.

    Raises:
        ArtifactError, ConfigError: its file or its ledger cannot be used.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = read_workspace_config(root / CONFIG_FILE)
        self.artifacts = Artifacts(root / FOLDER / "artifacts")
        self.ledger = Ledger(root / FOLDER / "ledger.db")

    @property
    def runs(self) -> Path:
        """The folder of lessons under way."""
        return self.root / FOLDER / "runs"

    def interactions(self) -> Interactions:
        """Opens the store of what is kept of the model's use; made if missing. To be closed.

        Raises:
            ArtifactError: it cannot be used.
            ConfigError: a redaction cannot be used.
        """
        redact = redactor(self.config.interactions.redact)
        return Interactions(self.root / FOLDER / INTERACTIONS_FILE, redact)

    @staticmethod
    def find(start: Path) -> Path | None:
        """The workspace that a folder lies in, if any."""
        start = start.resolve()
        return next((place for place in (start, *start.parents) if (place / CONFIG_FILE).is_file()), None)

    @staticmethod
    def open(start: Path) -> Workspace:
        """Opens the workspace that a folder is, or lies in.

        Raises:
            ConfigError: there is none, or its file names another model than it was made with.
        """
        root = Workspace.find(start)
        if root is None:
            raise ConfigError(f"{start}: not in a workspace (no {CONFIG_FILE}); make one with selftaught init")
        workspace = Workspace(root)
        made = [event.reason.removeprefix(BASE_REASON) for event in workspace.ledger.events()[:1]]
        made_with = made[0] if made else workspace.config.model  # none yet: its making was interrupted
        if workspace.config.model != made_with:
            raise ConfigError(
                f"{root / CONFIG_FILE}: names the model {workspace.config.model}, but the workspace was made with "
                f"{made_with}; put that back, or make another workspace"
            )
        return workspace

    @staticmethod
    def create(root: Path, model: str) -> Workspace:
        """Makes a workspace, or finishes making one that was interrupted.

        Args:
            root: its folder; made if missing.
            model: the base: an embedded name, a model's directory, or a hub id.

        Raises:
            ConfigError: there is one already, around it or in it, or a file of settings for another model.
            ModelError: there is no such model.
        """
        from selftaught.models.resolve import resolve_model

        outer = Workspace.find(root.resolve().parent)
        if outer is not None:
            raise ConfigError(f"{root}: lies in the workspace {outer}; choose a folder outside of it")
        source = resolve_model(model)
        with locked(root / FOLDER, "wait for it"):
            if (root / FOLDER / "ledger.db").is_file() and Ledger(root / FOLDER / "ledger.db").has_head():
                raise ConfigError(f"{root}: is a workspace already; selftaught log shows what it holds")
            name = str(source) if Path(model).expanduser().is_dir() else model
            if not (root / CONFIG_FILE).exists():
                write_text(root / CONFIG_FILE, new_workspace_config(name))
            elif (found := read_workspace_config(root / CONFIG_FILE).model) != name:
                raise ConfigError(
                    f"{root / CONFIG_FILE}: is there already, and names the model {found}; remove it, or make the "
                    f"workspace with --model {found}"
                )
            digest = _kept_model(Artifacts(root / FOLDER / "artifacts"), source)
            Ledger(root / FOLDER / "ledger.db", create=True).add_base(digest, f"{BASE_REASON}{name}")
        return Workspace(root)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keeps other writers out.

        Raises:
            ArtifactError: another process is writing.
        """
        with locked(self.root / FOLDER, "wait until it is done (selftaught log shows what is there)"):
            yield

    # -------------------------------------------------------------------------------------- looking

    def model_folder(self, version: Version) -> Path:
        """A version's weights, verified.

        Raises:
            ArtifactError: they were removed, or are damaged.
        """
        if self.is_collected(version):  # another version's may be the same, and go any time
            raise ArtifactError(f"{version.name}: its weights were removed by selftaught gc; teach the skill again")
        try:
            return self.artifacts.folder(version.model_artifact)
        except ArtifactError as error:
            raise ArtifactError(
                f"{version.name}: its weights cannot be used: {error}, or go back to an earlier version with "
                "selftaught rollback"
            ) from error

    def is_collected(self, version: Version) -> bool:
        """Whether its weights were removed."""
        return version.number in self._collected()

    def _collected(self) -> set[int]:
        return {event.version for event in self.ledger.events() if event.kind == "collected"}

    def rows(self, skill: Skill) -> tuple[Example, ...]:
        """A skill's rows, verified.

        Raises:
            ArtifactError: they are damaged.
        """
        return tuple(from_json_lines(self.artifacts.text(skill.rows_artifact)))

    def results(self, evaluation: Evaluation) -> list[dict[str, Any]]:
        """A version's answers to a suite: {"id", "cluster", "completion", "correct"} each, verified."""
        return [json.loads(line) for line in self.artifacts.text(evaluation.results_artifact).split("\n") if line]

    # ------------------------------------------------------------------------------------- changing

    def roll_back(self, name: str, reason: str) -> list[Version]:
        """Moves HEAD back to an earlier version, whose weights are verified first.

        Returns:
            The versions that are no longer in force.

        Raises:
            ConfigError: HEAD does not descend from it.
            ArtifactError: its weights are gone or damaged.
        """
        with self.writing():
            target = self.ledger.version(name)
            self.model_folder(target)
            return self.ledger.roll_back(target, reason)

    def export(self, name: str, out: Path, adapter: bool = False) -> Version:
        """Writes a version's weights as a plain transformers directory, or as the peft adapter that was trained.

        Raises:
            ArtifactError: something is there already, or the weights are gone.
            ConfigError: an adapter is asked for and none was trained.
        """
        version = self.ledger.version(name)
        if out.exists():
            raise ArtifactError(f"{out}: is there already; choose another place")
        source = self.model_folder(version)
        if adapter:
            if version.adapter_artifact is None:
                raise ConfigError(f"{version.name}: was taught with full weights; export it without --adapter")
            source = self.artifacts.folder(version.adapter_artifact)
        with whole_directory(out) as draft:
            shutil.copytree(source, draft, dirs_exist_ok=True)
            if adapter:
                self._name_base(version, draft)
        return version

    def _name_base(self, version: Version, draft: Path) -> None:
        """An adapter on a hub's model names it as everyone does; any other names its parent's folder, as it is now."""
        from selftaught.models.resolve import EMBEDDED

        path = draft / "adapter_config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        parent, base = self.ledger.version(str(version.parent)), self.config.model
        if parent.number or base in EMBEDDED or Path(base).exists():
            base = str(self.model_folder(parent).absolute())
        write_json(path, {**config, "base_model_name_or_path": base})

    def collect(self, dry_run: bool = False, keep: int | None = None) -> tuple[list[Version], int]:
        """Removes the weights of versions that are not in force, and what nothing refers to.

        Kept are HEAD, the base, versions on hold that can still be promoted, and the promoted ones (of these, the
        newest `keep`). Answers, verdicts and rows are kept of all. Lessons that were begun from another HEAD go, too.

        Returns:
            The versions whose weights go, and the bytes that become free.
        """
        with self.writing():
            head = self.ledger.head()
            line = self.ledger.lineage(head)
            safe = {version.number for version in (line if keep is None else [line[0], *line[:keep], line[-1]])}
            done = self._collected()
            gone = [
                version
                for version in self.ledger.versions()
                if version.number not in safe | done
                and not (self.ledger.status(version) == "inconclusive" and version.parent == head.number)
            ]
            held = self._held(gone)
            dead = sorted(self.artifacts.digests() - held)
            size = sum(map(self.artifacts.size, dead))
            if not dry_run:
                self.ledger.collected(gone)  # first: weights that are missing are then known to be
                for digest in dead:
                    self.artifacts.remove(digest)
                for run in self._stale_runs(head):
                    discard(run)
                for place in (*self.artifacts.leftovers(), *self.runs.glob(".*")):
                    shutil.rmtree(place, ignore_errors=True) if place.is_dir() else place.unlink(missing_ok=True)
        return gone, size

    def _stale_runs(self, head: Version) -> list[Path]:
        """Lessons under way that teach what is HEAD no longer; several times the model's size, each."""
        requests = {path.parent: read_json(path) for path in self.runs.glob("[!.]*/request.json")}
        return [folder for folder, request in requests.items() if request.get("head") != head.number]

    def _held(self, gone: Sequence[Version]) -> set[str]:
        """Artifacts that are still needed when some versions' weights are not."""
        numbers = {version.number for version in gone}
        freed = {version.model_artifact for version in gone} | {version.adapter_artifact for version in gone}
        collected = self._collected() | numbers
        still = [version for version in self.ledger.versions() if version.number not in collected]
        needed = {version.model_artifact for version in still} | {version.adapter_artifact for version in still}
        return self.ledger.artifacts() - {digest for digest in freed - needed if digest}

    def check(self) -> list[str]:
        """Everything that is wrong: every hash is computed. An empty list is a sound workspace."""
        problems = [f"{self.ledger.path}: {problem}" for problem in self.ledger.check()]
        if problems:
            return problems
        users = self._users()
        damaged = {}
        for digest in sorted(self.ledger.artifacts()):
            try:
                self.artifacts.verify(digest)
            except ArtifactError as error:
                damaged[digest] = f"{error} (it holds {users.get(digest, 'a lesson')})"
        needed = self.ledger.artifacts()  # asked again: gc may be at work beside us
        problems = [problem for digest, problem in damaged.items() if digest in needed]
        head = self.ledger.head()
        if self.is_collected(head):
            problems.append(f"{head.name} is HEAD, and its weights were removed")
        return problems

    def _users(self) -> dict[str, str]:
        """What each artifact is, in words."""
        users = {skill.rows_artifact: f"the rows of {skill.name}" for skill in self.ledger.skills()}
        for version in self.ledger.versions():
            users[version.model_artifact] = f"the weights of {version.name}"
            users[version.adapter_artifact or ""] = f"the adapter of {version.name}"
            for evaluation in self.ledger.evaluations(version):
                users[evaluation.results_artifact] = f"{version.name}'s answers to {evaluation.suite}"
        return users


def _kept_model(artifacts: Artifacts, source: Path) -> str:
    """Keeps a model; an adapter is merged into its base first, so that HEAD is whole by itself."""
    if not (source / "adapter_config.json").is_file():
        return artifacts.put_folder(source)
    from selftaught.models.load import load_model

    merged = load_model(source)
    with tempfile.TemporaryDirectory() as scratch:
        merged.model.save_pretrained(scratch)  # type: ignore[operator]
        merged.tokenizer.save_pretrained(scratch)
        return artifacts.put_folder(Path(scratch))
